"""Build a stock of pictures, cut-outs and sounds with free licences, for data sets that compose clips from them."""

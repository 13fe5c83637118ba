"""Export models to ONNX and run exported files: ``static`` is the form, ``write`` exports, ``read`` runs."""

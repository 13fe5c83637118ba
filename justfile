# Commands of development; `pip install rust-just`, then `just` lists them. The environment: pip install -e ".[dev,docs]"

# list the commands
default:
    @just --list

# run the tests
test *arguments:
    pytest -n auto {{arguments}}

# run the tests that take less than 3 s each
quick:
    pytest -n auto -m "not slow"

# check style, format, types and spelling
lint:
    ruff check
    ruff format --check
    mypy
    codespell

# correct style and format
fix:
    ruff check --fix
    ruff format

# build the documentation site into site/
docs:
    mkdocs build --strict

# show the documentation at http://localhost:8000 while writing
serve:
    mkdocs serve

# run all checks in fresh virtual environments, as in CI
ci *steps:
    .ci/run {{steps}}

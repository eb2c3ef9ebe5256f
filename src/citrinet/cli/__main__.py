"""`python -m citrinet.cli`, for `accelerate launch`."""

from . import program

if __name__ == "__main__":
    program()

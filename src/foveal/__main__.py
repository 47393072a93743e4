"""`python -m foveal` is the same as the command `foveal`."""

from foveal.cli import main

if __name__ == "__main__":
    main()

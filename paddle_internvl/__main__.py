"""`python -m paddle_internvl`: the command line."""

from paddle_internvl.cli.main import main_and_exit

if __name__ == "__main__":
    main_and_exit()

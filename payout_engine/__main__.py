"""`python -m payout_engine` is the command line."""

from payout_engine.cli import main

if __name__ == "__main__":
    main()

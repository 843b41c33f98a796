"""What the engine costs, measured side by side on one machine: `python -m benchmarks --help`.

Each case runs in a process of its own against a small server that speaks Senfenico's transfer API and keeps a ledger. A
figure counts only when that ledger holds exactly the payouts and the money of the file.
"""

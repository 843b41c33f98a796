"""Write `payout_engine/domain/data/operators.json` from the carrier metadata of the installed `phonenumbers`.

Run it after raising `phonenumbers`, and read the difference before committing it:

    python tools/derive_operators.py

The file says who was first given a block of numbers, not who serves a ported number today. Names that are out of date
and rules that the metadata lacks are mended in `payout_engine/domain/data/corrections.json`, each with its source.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import orjson
import phonenumbers
from phonenumbers.carrierdata import CARRIER_DATA

from payout_engine.domain import clock

DATA = Path(__file__).parent.parent / "payout_engine" / "domain" / "data"


def operators(region: str) -> dict[str, list[str]]:
    """Return the national prefixes of each operator of a country, by the operator's name."""
    dial_code = str(phonenumbers.country_code_for_region(region))
    found: dict[str, list[str]] = defaultdict(list)
    for prefix, names in CARRIER_DATA.items():
        if prefix.startswith(dial_code) and "en" in names:
            found[names["en"]].append(prefix.removeprefix(dial_code))
    return {name: sorted(found[name]) for name in sorted(found)}


def main() -> None:
    """Derive the table of every country we serve."""
    countries = orjson.loads((DATA / "countries.json").read_bytes())["countries"]
    version, read = phonenumbers.__version__, clock.text(clock.now())[:10]
    table = {
        "source": f"carrier metadata of phonenumbers {version} (a port of Google's libphonenumber), read {read}",
        "countries": {region: operators(region) for region in sorted(countries)},
    }
    (DATA / "operators.json").write_bytes(orjson.dumps(table, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()

"""Which column of a payout file means what.

Headers are found in English or French whatever their case, accents and punctuation, or by the configuration's mapping.
Two columns that could be the same thing are never chosen between: the payer says which. Intake asks once per file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import msgspec

from payout_engine.domain.countries import fold
from payout_engine.domain.errors import ConfigError, InputError
from payout_engine.domain.model import masked
from payout_engine.domain.money import currencies_named

HEADERS: Mapping[str, str] = {
    "phone": "phone telephone tel mobile msisdn numero numerodetelephone numerotelephone phonenumber mobilenumber "
    "telephonenumber numerotel numtel ntel notel ndetelephone ntelephone phoneno mobileno cell cellphone cellulaire "
    "telephonemobile telephone1 tel1 phone1 contact "
    "portable gsm recipientphone recipientphonenumber beneficiaryphone payeephone customerphone telephonebeneficiaire "
    "telephonedubeneficiaire numerobeneficiaire numerodubeneficiaire numeromobile numerodemobile numeromobilemoney "
    "mobilemoneynumber mobilemoney momo momonumber numeromomo teldubeneficiaire telmobile",
    "email": "email mail courriel emailaddress adresseemail adressemail adresseelectronique recipientemail "
    "emaildubeneficiaire",
    "account_number": "accountnumber account bankaccount bankaccountnumber compte numerodecompte numerocompte "
    "comptebancaire iban rib",
    "amount": "amount montant salaire salary net netapayer netpay netsalary salairenet netpaye montantapayer "
    "apayer montantxof montantxaf montantfcfa montantenfcfa montantenxof amountxof amountinxof montantnet amounttopay "
    "payoutamount paymentamount somme remuneration wage wages montantdupaiement montantpaiement",
    "amount_minor": "amountminor",
    "reference": "reference ref id extid externalid externalreference externalref matricule identifiant uniqueid "
    "paymentreference paymentid transactionid transactionreference transactionref referencepaiement "
    "referencedupaiement numerodereference clientreference orderid",
    "currency": "currency devise monnaie currencycode codedevise",
    "country": "country pays countrycode codepays paysdubeneficiaire recipientcountry",
    "wallet": "wallet operator operateur recipientwallet walletcode portefeuille reseau network mobileoperator "
    "operateurmobile telco operatortelecom operateurtelecom",
    "name": "name nom nomcomplet fullname recipientname beneficiary beneficiaryname beneficiaire nombeneficiaire "
    "nomdubeneficiaire nometprenom nometprenoms nomprenom nomprenoms nomsetprenoms employee employeename employe payee "
    "payeename customername destinataire",
    "bank": "bank banque bankcode codebanque bankname nomdelabanque bic swift swiftcode codeswift codebic",
    "document_type": "documenttype typededocument doctype idtype typedepiece typepiece pieceidentite "
    "typedepiecedidentite identitydocumenttype",
    "document_number": "documentnumber numerodedocument docnumber idnumber numerodepiece numeropiece "
    "numerodelapiece identitydocumentnumber nationalid cni numerocni passport passeport",
    "otp": "otp onetimepassword codeotp motdepasseunique codedeconfirmation",
}
"""The headers we know for each meaning, as `fold` leaves them."""

RECIPIENTS = ("phone", "account_number", "email")
"""The meanings that can say who is paid, in the order they are preferred."""

_MEANINGS: Mapping[str, str] = {header: meaning for meaning, headers in HEADERS.items() for header in headers.split()}
_IN_BRACKETS = re.compile(r"[(\[].*?[)\]]")
_HEADERS_SHOWN_MAX = 30
_OURS = "payout_"
_OUR_MARKS = frozenset({"payout_line", "payout_status"})
"""The columns that show a file to be one of our own results: what we added there is not what the payer wrote."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where each meaning stands in a row: an index, or -1 where the file has no such column.

    Attributes:
        columns: the header as written.
        amount_minor: an amount that is already in minor units, as programs write it.
        amount_currencies: what the amount's header says of its currency, such as `Montant (FCFA)`; empty if nothing.
    """

    columns: Sequence[str]
    phone: int = -1
    email: int = -1
    account_number: int = -1
    amount: int = -1
    amount_minor: int = -1
    reference: int = -1
    currency: int = -1
    country: int = -1
    wallet: int = -1
    name: int = -1
    bank: int = -1
    document_type: int = -1
    document_number: int = -1
    otp: int = -1
    amount_currencies: frozenset[str] = frozenset()

    @property
    def has_references(self) -> bool:
        """True when the file carries the payer's own references."""
        return self.reference >= 0

    def header(self, index: int) -> str:
        """Return the header of a column, or empty for a column the file does not have."""
        return self.columns[index] if index >= 0 else ""

    def found(self) -> Mapping[str, str]:
        """Return the header of every meaning that was found."""
        places = {meaning: getattr(self, meaning) for meaning in HEADERS}
        return {meaning: self.columns[index] for meaning, index in places.items() if index >= 0}


def find_layout(columns: Sequence[str], mapping: Mapping[str, str] | None = None, name: str = "The file") -> Layout:
    """Find the columns of a file.

    Args:
        columns: the header as written.
        mapping: meaning -> header, from the configuration; it decides before any guess.
        name: what to call the file in messages.

    Raises:
        ConfigError: the mapping speaks of a meaning that does not exist.
        InputError: a needed column is missing, or two columns could be the same thing; the message says how to map.
    """
    places = _mapped(columns, mapping or {}, name)
    taken = set(places.values())
    ours = _OUR_MARKS.issubset(map(str.strip, columns))
    for index, header in enumerate(columns):
        meaning = "" if ours and header.strip().startswith(_OURS) else _meaning(header)
        if not meaning or index in taken or (mapping and meaning in mapping):
            continue
        if meaning not in places:
            places[meaning] = index
        elif meaning != "name":
            # A second name column changes nothing about the money; any other doubt does.
            raise InputError(_doubled(name, meaning, columns[places[meaning]], header))
    _require(columns, places, name)
    amount_header = columns[places.get("amount", places.get("amount_minor", 0))]
    return Layout(columns=tuple(columns), amount_currencies=_currencies_in(amount_header), **places)


def _mapped(columns: Sequence[str], mapping: Mapping[str, str], name: str) -> dict[str, int]:
    """Return the places that the configuration names."""
    folded = {fold(header): index for index, header in reversed(list(enumerate(columns)))}
    places: dict[str, int] = {}
    for meaning, header in mapping.items():
        if meaning not in HEADERS:
            raise ConfigError(f"“{meaning}” is not what a column can mean. Known: {', '.join(HEADERS)}.")
        index = columns.index(header) if header in columns else folded.get(fold(header), -1)
        if index < 0:
            near = get_close_matches(fold(header), folded, n=1)
            hint = f" Perhaps “{masked(columns[folded[near[0]]])}” is meant." if near else ""
            raise InputError(
                f"{name} has no column “{header}”, which is said to be the {meaning}.{hint} "
                f"Its columns are: {_listed(columns)}."
            )
        places[meaning] = index
    return places


def _meaning(header: str) -> str:
    """Return what a header means, or empty; a remark in brackets, such as a unit, does not matter."""
    return _MEANINGS.get(fold(header)) or _MEANINGS.get(fold(_IN_BRACKETS.sub("", header))) or ""


def _require(columns: Sequence[str], places: Mapping[str, int], name: str) -> None:
    """Insist on a recipient and on one amount."""
    if not any(recipient in places for recipient in RECIPIENTS):
        raise InputError(_missing(name, "phone", "a phone number (or an e-mail or an account number)", columns))
    if "amount" not in places and "amount_minor" not in places:
        raise InputError(_missing(name, "amount", "an amount", columns))
    if "amount" in places and "amount_minor" in places:
        raise InputError(_doubled(name, "amount", columns[places["amount"]], columns[places["amount_minor"]]))


def _missing(name: str, meaning: str, what: str, columns: Sequence[str]) -> str:
    return (
        f"{name} has no column for {what}. Its columns are: {_listed(columns)}. The first line that is "
        f"not blank has to name the columns, with no title above them. Call one of them “{meaning}”, "
        f'or say which one it is: --column {meaning}="its header", or in the configuration: [columns] {meaning} = "its '
        'header".'
    )


def _doubled(name: str, meaning: str, first: str, second: str) -> str:
    return (
        f"{name} has two columns that could be the {meaning}: “{first}” and “{second}”. Rename the one that is not "
        f'meant, or say which one is: --column {meaning}="{first}", or in the configuration: [columns] {meaning} = '
        f'"{first}".'
    )


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(f"“{masked(header)}”" for header in columns[:_HEADERS_SHOWN_MAX])
    return shown if len(columns) <= _HEADERS_SHOWN_MAX else f"{shown} and {len(columns) - _HEADERS_SHOWN_MAX} more"


def _currencies_in(header: str) -> frozenset[str]:
    """Return the currencies that a header names."""
    words = re.findall(r"[^\W\d_]+|[₦€$]", header)
    named = [currencies_named(word) for word in words if len(word) > 1 or not word.isalpha()]
    return frozenset().union(*named)

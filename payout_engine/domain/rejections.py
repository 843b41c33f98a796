"""Every reason our own rules give, with its sentence: the one place where these words are written.

A code is stable and is what programs read; the sentence is for a finance clerk and says what is wrong and how to mend
it. Intake refuses lines with them, the holds name them, results and summaries repeat them. Reasons that a provider
gives are not here: they carry the provider's own words.

Sentences may name the number that was probably meant. They belong in the files the payer asked for, never in a log.
"""

from __future__ import annotations

from collections.abc import Mapping

from payout_engine.domain.model import Problem

SENTENCES: Mapping[str, str] = {
    # -- the line as a whole
    "line_ragged": "The line has {found} cells where the header has {expected}; look for a separator or a quotation "
    "mark too many, such as a comma in a name, and write the line again with the header's columns.",
    "line_unreadable": "The line cannot be read: {why}; write the line again.",
    # -- who is paid
    "phone_missing": "There is no phone number; write the recipient's mobile number.",
    "phone_unreadable": "{text!r} is not a phone number; write digits only.{hint}",
    "phone_rounded": "{text!r} was rounded by a spreadsheet and its last digits are lost; take the number from the "
    "original list and format the column as text.",
    "phone_leading_zero": "{text!r} is one digit short and may have lost its leading zero in a spreadsheet; compare it "
    "with the original list, and if {likely} is meant, write that.",
    "phone_length": "The number has {found} digits where a mobile number of {country} has {expected}; compare it with "
    "the original list.",
    "phone_several": "The cell holds more than one phone number; keep the one that is to be paid.",
    "phone_old_plan": "{text!r} is a number of the old 8-digit plan of {country}, which ended in 2021; ask the "
    "recipient for the 10-digit number.",
    "phone_ambiguous": "{text!r} is a valid number of {country} and of {other}; write it with + and the country code.",
    "phone_country_missing": "The number has no country code and no country is set; write it with + and the country "
    "code, or set the default country.",
    "phone_not_mobile": "{text!r} is not a mobile number of {country}; only mobile numbers can be paid.",
    "email_missing": "There is no e-mail address; write the recipient's address.",
    "email_unreadable": "{text!r} is not an e-mail address; write one such as name@example.com.",
    "account_number_missing": "There is no account number; write the recipient's account.",
    "account_number_unreadable": "The account number holds characters that no account number has, or is too long; "
    "write letters and digits only.",
    "recipient_missing": "There is no recipient; fill one of: {columns}.",
    "recipient_kind_not_served": "No account of yours pays to {kind} here; {account!r} pays to {served}.{hint}",
    "name_needed": "{wallet} wants the name of each recipient; fill in the column “name”.",
    "email_needed": "{wallet} wants the e-mail address of each recipient; fill in the column “email”.",
    "bank_needed": "{wallet} wants the code or BIC of the recipient's bank; fill in the column “bank”.",
    "document_type_needed": "{wallet} wants the kind of the recipient's identity document; fill in the column "
    "“document_type”.",
    "document_number_needed": "{wallet} wants the number of the recipient's identity document; fill in the column "
    "“document_number”.",
    "otp_needed": "{wallet} wants the one-time password that the payer was given; fill in the column “otp”.",
    # -- where the money goes
    "country_unknown": "{text!r} is not a country we know; write its two-letter code, such as BF.",
    "country_mismatch": "The number belongs to {country} but the line says {stated}; correct one of them.",
    "country_not_served": "The recipient is in {country}, where no account of yours pays; served: {served}.{hint}",
    "operator_not_served": "{operator} numbers cannot be paid from account {account!r}, which serves {served}.{hint}",
    "prefix_not_served": "{wallet} is not documented to pay numbers that begin with {prefix}. If the provider says "
    'that it does, add extra_prefixes.{wallet_code} = ["{prefix}"] to [accounts.{account}] in the configuration.{hint}',
    "wallet_unknown": "{text!r} is not a wallet of account {account!r}; write one of {codes}, or leave it empty.",
    "wallet_ambiguous": "Nothing in it says which wallet is meant; write one in the column “wallet”: {codes}.",
    "wallet_needed": "Account {account!r} cannot tell from the number which wallet is meant; write one of {codes}.",
    "wallet_closed": "Account {account!r} cannot use {wallet} here as it is configured. Add to [accounts.{account}]: "
    "{remedy}.",
    "daily_limit": "{wallet} takes at most {limit}; its document does not say whose limit it is, so payouts beyond it "
    "are sent all the same and may fail.",
    "wallet_mismatch": "The number belongs to {operator} but the wallet is {wallet}; correct the number or the wallet.",
    "wallet_mismatch_possible": "The number was first given out by {operator} but the wallet is {wallet}; it may have "
    "been ported since, so it will be paid as written.",
    "route_missing": "No route of the configuration fits the line ({facts}); add a route.",
    # -- how much
    "total_differs": "The file's own total is {stated}, but its lines add up to {sum}; find out which is right before "
    "anybody is paid.",
    "amount_missing": "There is no amount; write how much is to be paid.",
    "amount_not_a_number": "{text!r} is not an amount; write digits, such as 150000.",
    "amount_negative": "{text!r} is negative; write a positive amount or remove the line.",
    "amount_zero": "The amount is zero; write how much is to be paid or remove the line.",
    "amount_decimals": "{text!r} has more decimals than can be paid in {currency}; write {allowed}.",
    "amount_ambiguous": "{text!r} could mean {thousands} or {decimal}; write {thousands} or {plain}, whichever is "
    "meant.",
    "amount_too_large": "{text!r} is larger than any amount that can be paid; check the figure.",
    "amount_below_minimum": "The amount is below the smallest that {wallet} accepts, {minimum}.",
    "amount_above_limit": "The amount is above {limit}, the largest that {of} allows; split it, or have the limit "
    "changed.",
    "amount_multiple": "{wallet} accepts only multiples of {multiple}; change the amount.",
    "currency_unknown": "{text!r} is not a currency we know; write its three-letter code, such as XOF.",
    "wrong_currency": "The line is in {stated} but {wallet} pays in {currency}; correct the currency or the amount.",
    # -- the payer's own id
    "reference_missing": "There is no reference; every line needs its own, or remove the column so that we number "
    "the lines.",
    "reference_unreadable": "The reference holds characters that cannot be printed, or more than {limit} characters; "
    "shorten or retype it.",
    # -- held for a person, or a warning
    "reference_repeated": "The reference is already used in line {line} of this file; give this line its own "
    "reference, or remove it if it is a copy.",
    "reference_already_used": "The reference was already used in run {run}, line {line}, which is {state}; if "
    "this is a new payment, give it a reference of its own.",
    "reference_alike": "The reference is that of {where} ({theirs!r}){state}, but for zeros, spaces or signs, and the "
    "same recipient gets the same amount; if both are meant, release this line with `payout-engine resolve`.",
    "line_repeated": "The line has the same cells as {where}{state}; if both are meant, release this line with "
    "`payout-engine resolve`.",
    "payee_amount_repeated": "The same recipient gets the same amount in {where}{state}; if both are meant, "
    "release this line with `payout-engine resolve`.",
    "payee_amount_twice": "The same recipient gets the same amount in {where}{state}; this line will be paid too, so "
    "take it out if it is a copy.",
}
"""The sentence of each code; `{...}` are filled in by `problem`."""

REPEATED: frozenset[str] = frozenset(
    {"reference_repeated", "reference_already_used", "reference_alike", "line_repeated", "payee_amount_repeated"}
)
"""The codes of lines that are held because they repeat another; whoever knows that both are meant releases them."""


def problem(code: str, column: str = "", **facts: object) -> Problem:
    """Return the problem `code` with its sentence filled in.

    Args:
        code: a key of `SENTENCES`.
        column: the header of the column at fault, or empty.
        facts: what the sentence's braces ask for.
    """
    # Cells are shown with their hard spaces and line ends as plain spaces, not as escapes of a programmer. A hint is
    # a sentence of ours and brings the space before it.
    shown = {
        name: " ".join(fact.split()) if isinstance(fact, str) and name != "hint" else fact
        for name, fact in facts.items()
    }
    return Problem(code, SENTENCES[code].format_map(shown), column)

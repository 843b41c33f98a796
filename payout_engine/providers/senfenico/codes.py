"""The sixteen error codes of Senfenico, with both descriptions as printed. Data, used by people and by the sandbox.

Source: Senfenico API document, section "Error Codes", read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Description(msgspec.Struct, frozen=True):
    """What the document says of a code, in English and in French."""

    english: str
    french: str


DESCRIPTIONS: Mapping[str, Description] = {
    "BATCH_SIZE_LIMIT_EXCEEDED": Description(
        "The request exceeds the maximum batch size of 100 items. "
        "Please reduce the number of items in the batch and try again.",
        "La requête dépasse la taille maximale autorisée de 100 éléments. "
        "Veuillez réduire le nombre d'éléments dans le lot et réessayer.",
    ),
    "RATE_LIMIT_EXCEEDED": Description(
        "You have exceeded the rate limit for API requests. Please wait before making further requests.",
        "Vous avez dépassé la limite de taux pour les requêtes API. "
        "Veuillez patienter avant de faire d'autres requêtes.",
    ),
    "UNSUPPORTED_PROVIDER": Description("UNSUPPORTED_PROVIDER", "UNSUPPORTED_PROVIDER"),
    "OTP_INVALID": Description(
        "The OTP is invalid. Please try again.", "OTP invalide fournies. Veuillez vérifier et réessayer."
    ),
    "OTP_EXPIRED": Description(
        "The OTP has expired. Please request a new one.", "Le code OTP a expiré. Veuillez en demander un nouveau."
    ),
    "OTP_STILL_VALID": Description(
        "The current OTP is still valid. Please use the existing OTP or wait until it expires to request a new one.",
        "Le code OTP actuel est toujours valide. "
        "Veuillez utiliser le code OTP existant ou attendre qu'il expire pour en demander un nouveau.",
    ),
    "INSUFFICIENT_FUNDS": Description(
        "Account holder does not have enough funds to complete this transaction.",
        "Le titulaire du compte n'a pas suffisamment de fonds pour effectuer cette transaction.",
    ),
    "INVALID_ACCOUNT": Description(
        "The phone number is not valid or is not associated with an account with operator. "
        "Please check the phone number and try again.",
        "Le numéro de téléphone n'est pas valide ou n'est pas associé à un compte chez l'opérateur. "
        "Veuillez vérifier le numéro de téléphone et réessayer.",
    ),
    "NETWORK_ERROR": Description(
        "A network error occurred. Please try again later.",
        "Une erreur de réseau est survenue. Veuillez réessayer plus tard.",
    ),
    "CHARGE_NOT_FOUND": Description(
        "Charge with the given reference not found.", "La transaction avec la référence donnée est introuvable."
    ),
    "INTERNAL_ERROR": Description(
        "An internal error occurred. Please try again later.",
        "Une erreur interne est survenue. Veuillez réessayer plus tard.",
    ),
    "UNKNOWN_ERROR": Description(
        "An unknown error occurred. Please try again later.",
        "Une erreur inconnue est survenue. Veuillez réessayer plus tard.",
    ),
    "TRANSACTION_NOT_FOUND": Description("Transaction not found.", "Transaction introuvable."),
    "UNAUTHORIZED_CHARGE_PROVIDER": Description(
        "You are not authorized to charge this provider. If you think this is an error, please contact Senfenico team.",
        "Vous n'êtes pas autorisé à collecter les paiement de cet opérateur. "
        "Si vous pensez qu'il s'agit d'une erreur, veuillez contacter l'équipe de Senfenico.",
    ),
    # As printed: the first sentence seems to have slipped in from another row.
    "EXTERNAL_API_ERROR": Description(
        "The OTP is invalid. Please try again. An error occurred with an external API. "
        "Please try again later or contact support if the issue persists.",
        "Veuillez réessayer plus tard ou contacter le support si le problème persiste.",
    ),
    "INVALID_DATA": Description(
        "Invalid data provided. Please check the input and try again.",
        "Données invalides fournies. Veuillez vérifier les données saisies et réessayer.",
    ),
}
"""By code. An error of the client that comes from a code has it in lower case as its `reason`."""

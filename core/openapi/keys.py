"""API keys, which operators make."""

from typing import Final

from core.contract.errors import InvalidParameters, KeyNotFound
from core.contract.key import Key, MadeKey, WantedKey
from core.openapi.operation import Answer, At, Operation

OPERATIONS: Final = (
    Operation(
        "make_key",
        "post",
        "/api/keys/",
        "Make an API key for a gateway's client. Only this answer has the key itself. `scope` may stand several times",
        {201: Answer(MadeKey, "The key, which nobody can show again")},
        (InvalidParameters,),
        (WantedKey,),
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "list_keys",
        "get",
        "/api/keys/",
        "List the API keys, those that are revoked or have expired among them",
        {200: Answer(list[Key])},
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "revoke_key",
        "delete",
        "/api/keys/{id}",
        "Revoke an API key: it opens nothing any more. Its tasks stay, for admins",
        {200: Answer(Key, "As it is now")},
        (KeyNotFound,),
        at=At.CORE,
        tells_problems=True,
    ),
)

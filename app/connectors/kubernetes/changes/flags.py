"""Sets one field of one feature flag in a ConfigMap. Pure."""

from __future__ import annotations

from app.agent.actions.disable_flag import FIELD, FLAG, KEY, VALUE
from app.agent.evidence.cluster.flags import with_field
from app.agent.ids import JsonObject
from app.connectors.kubernetes.changes.request import ChangeRequest, escaped, put
from app.connectors.kubernetes.fields import texts
from app.errors import Invalid


def set_flag(request: ChangeRequest) -> list[JsonObject]:
    """The other flags, and whatever else the ConfigMap holds, stay."""
    key, flag, field, value = (str(request.action.parameters.get(name)) for name in (KEY, FLAG, FIELD, VALUE))
    now = texts(request.current, "data").get(key, "")
    wanted = with_field(now, flag, field, value)
    if wanted is None:
        raise Invalid(f"{request.action.name}: {request.ref} holds no flag {flag} in {key}")
    if wanted == now:
        raise Invalid(f"{request.action.name}: {field} of flag {flag} in {request.ref} is {value} already")
    return [put(f"/data/{escaped(key)}", wanted)]

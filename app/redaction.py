"""Credentials taken out of text before it is kept or shown (promise 12). The one place that knows how.

Errors, timelines, log lines and whatever connectors repeat of an upstream's words
pass through `redacted`. It takes out the secrets of the settings, which the
composition root registers, and anything shaped like a credential;
of web addresses it leaves neither user information nor query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HIDDEN = "[redacted]"

_LEAST = 6
"""Shorter secrets are not looked for by value: they would be found in ordinary words."""
_LONG = 12
"""Secrets up to this length are taken out only where they stand alone, as a word does."""

_KEY = (
    r"[\w.-]{0,40}(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|client[_-]?secret|account[_-]?key|credentials?|\bpwd|_pwd)"
)
_KEY_SIGNS = ("passw", "passphrase", "secret", "key", "credential", "pwd")
_BARE = r"[^\s\"'&,;()\[\]{}]"
"""A character of a value without quotes; the marker of what was taken out begins with another."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """What one kind of credential looks like."""

    signs: tuple[str, ...]
    """One of these, in lower case, stands in every text that has it: most texts have none."""
    pattern: re.Pattern[str]
    left: str = HIDDEN
    """What is left of it."""


_SHAPES = (
    _Shape(
        ("private key",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.S
        ),
    ),
    _Shape(  # a header with a credential: the whole value
        ("authorization", "cookie", "x-api-key"),
        re.compile(r"(?i)\b((?:proxy-)?authorization|set-cookie|cookie|x-api-key)(\"?'?\s*[:=]\s*)[^\r\n]+"),
        rf"\1\2{HIDDEN}",
    ),
    _Shape(  # user information of any address
        ("://",),
        re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,30}://)[^\s/?#\"'<>@]{1,400}(?:@[^\s/?#\"'<>@]{1,400})*@"),
        r"\1",
    ),
    _Shape(  # the same, where the password holds what should be escaped: a port is none
        ("://",),
        re.compile(
            r"(?i)\b([a-z][a-z0-9+.-]{1,30}://)[^\s/?#\"'<>@:]{0,200}:(?!\d{1,5}[/?#])[^\s\"'<>@]{1,400}@"
        ),
        r"\1",
    ),
    _Shape(  # the query and the fragment of a web address
        ("://",),
        re.compile(r"(?i)\b((?:https?|wss?)://[^\s?#\"'<>]{1,2000})[?#][^\s\"'<>)\]]*"),
        r"\1",
    ),
    _Shape(  # chat webhooks, whose path is their password
        ("hooks.slack", "webhook.office"),
        re.compile(
            r"(?i)\b(https?://(?:hooks\.slack(?:-gov)?\.com|[\w.-]{1,100}\.webhook\.office\.com)/)[^\s\"'<>]*"
        ),
        rf"\1{HIDDEN}",
    ),
    _Shape(
        ("bearer", "basic", "apikey"),
        re.compile(r"(?i)\b(bearer|basic|apikey)\s+(?=[^\s\"',;]{0,200}[\d+/=_.])[a-z0-9._~+/=-]{8,}"),
        rf"\1 {HIDDEN}",
    ),
    _Shape(("eyj",), re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,3}")),
    _Shape(
        ("akia", "asia", "agpa", "aida", "aroa", "aipa", "anpa", "anva"),
        re.compile(r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA)[A-Z0-9]{16}\b"),
    ),
    _Shape(("heal_",), re.compile(r"\b(heal_(?:tok|ses)_[0-9a-f]{1,64}_)[0-9a-f]{16,}"), rf"\1{HIDDEN}"),
    _Shape(("xox", "xapp-"), re.compile(r"\b(?:xox[a-z]|xapp)-[A-Za-z0-9-]{8,}")),
    _Shape(
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "aiza"),
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|AIza[\w-]{35})"),
    ),
    _Shape(
        ("sk_", "rk_", "whsec_"),
        re.compile(r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|\bwhsec_[A-Za-z0-9+/=]{16,}"),
    ),
    _Shape(  # OpenAI and its like, npm, Docker, PyPI, Hugging Face, SendGrid, Vault, Shopify, DigitalOcean
        ("sk-", "npm_", "dckr_pat_", "pypi-", "hf_", "sg.", "hvs.", "shpat_", "dop_v1_", "ya29."),
        re.compile(
            r"\b(?:sk-[\w-]{20,}|npm_[A-Za-z0-9]{30,}|dckr_pat_[\w-]{20,}|pypi-[\w-]{30,}|hf_[A-Za-z0-9]{24,}"
            r"|SG\.[\w-]{16,}\.[\w-]{30,}|hvs\.[\w-]{20,}|shpat_[0-9a-f]{32}|dop_v1_[0-9a-f]{64}|ya29\.[\w-]{20,})"
        ),
    ),
    _Shape(
        ("pass",), re.compile(rf"(?i)\b((?:[\w.-]{{0,40}}[_.-])?pass\s*=\s*[\"']?){_BARE}+"), rf"\1{HIDDEN}"
    ),
    _Shape(
        ("--pass", "secret"),
        re.compile(rf"(?i)(?<!\w)(--[\w-]{{0,40}}(?:password|passwd|secret)\s+[\"']?){_BARE}+"),
        rf"\1{HIDDEN}",
    ),
    _Shape(  # password=..., "client_secret": "..."; within quotes whatever stands there
        _KEY_SIGNS,
        re.compile(rf"(?i)\b({_KEY}s?[\"']?\s*=\s*[\"']?)(?:(?<=\")[^\"]+|(?<=')[^']+|{_BARE}+)"),
        rf"\1{HIDDEN}",
    ),
    _Shape(
        _KEY_SIGNS,
        re.compile(
            rf"(?i)\b({_KEY}[\"']?\s*:\s*[\"']?)(?:(?<=\")[^\"]+|(?<=')[^']+|(?=[^\s,;]{{0,200}}\d){_BARE}{{6,}})"
        ),
        rf"\1{HIDDEN}",
    ),
    _Shape(("passw",), re.compile(rf"(?i)\b(passw(?:or)?d\s*:\s*)(?![\"'\[]){_BARE}+"), rf"\1{HIDDEN}"),
    _Shape(  # auth: user/password, creds=user:password; an address or a path is none
        ("auth", "cred", "login"),
        re.compile(
            r"(?i)\b((?:[\w.-]{0,40}[_.-])?(?:auth|creds?|credentials?|login)[\"']?\s*[:=]\s*[\"']?)"
            rf"(?:(?!\w+://)[^\s\"',;/\[]{{1,100}}/|(?<=[=\"'])[^\s\"',;/:\[]{{1,100}}:){_BARE}+"
        ),
        rf"\1{HIDDEN}",
    ),
    _Shape(  # a token is a word of this product too: only what is long and has a digit
        ("token",),
        re.compile(
            r"(?i)\b([\w.-]{0,40}token[\"']?\s*[=:]\s*[\"']?)(?=[^\s\"',;]{0,200}\d)[A-Za-z0-9._~+/=-]{16,}"
        ),
        rf"\1{HIDDEN}",
    ),
)

_ANY_SIGN = re.compile("|".join(sorted({re.escape(sign) for shape in _SHAPES for sign in shape.signs})))
"""Most texts have no sign of a credential: one search instead of many."""

_known: set[str] = set()
_known_pattern: re.Pattern[str] | None = None


def remember(secrets: Iterable[str]) -> None:
    """Take these values out of every text from now on, in this process."""
    global _known_pattern
    new = {secret for secret in secrets if len(secret) >= _LEAST} - _known
    if not new:
        return
    _known.update(new)
    longest_first = sorted(_known, key=len, reverse=True)
    _known_pattern = re.compile("|".join(map(_literal, longest_first)))


def redacted(text: str) -> str:
    """The text without known secrets, without what is shaped like one, and with bare web addresses."""
    if _known_pattern is not None:
        text = _known_pattern.sub(HIDDEN, text)
    lower = text.lower()
    if _ANY_SIGN.search(lower) is None:
        return text
    for shape in _SHAPES:
        if any(sign in lower for sign in shape.signs):
            text = shape.pattern.sub(shape.left, text)
    return text


def cut(text: str) -> str:
    """The same, so that it can be seen that something was taken out: `https://shop.example/[redacted]`."""
    left = redacted(text)
    return left if left == text or HIDDEN in left else left + HIDDEN


def redacted_values(value: Any) -> Any:
    """The same for every text within plain JSON values; keys are kept."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: redacted_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(item) for item in value]
    return value


def _literal(secret: str) -> str:
    escaped = re.escape(secret)
    return escaped if len(secret) > _LONG else rf"(?<!\w){escaped}(?!\w)"

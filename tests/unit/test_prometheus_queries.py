"""Query templates: what they accept, and that no value can widen what a query selects."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.connectors.prometheus.promql import QueryTemplate, Selector, parse_duration
from app.errors import ConfigurationError, Invalid

VALUES = {"namespace": "payments", "service": "payments-api", "environment": "prod", "window": "1m"}


def fill(template: str, **changes: str) -> str:
    return QueryTemplate.parse(template, "THE_QUERY").fill({**VALUES, **changes}).text


def unquote(literal: str) -> str:
    """The value of a PromQL string, read by its grammar and not by the code under test."""
    if literal[0] == "`":
        return literal[1:-1]
    escapes = {"\\": "\\", "n": "\n", literal[0]: literal[0]}
    return re.sub(r"\\(.)", lambda match: escapes[match[1]], literal[1:-1], flags=re.DOTALL)


def test_placeholders_are_filled_in_everywhere() -> None:
    """In quotes of each kind, within longer strings, with blanks, and bare for the window."""
    matchers = 'ns="{{namespace}}",svc=\'{{ service }}\',e=`{{environment}}-eu`,w="{{window}}"'
    filled = 'ns="payments",svc=\'payments-api\',e=`prod-eu`,w="1m"'
    assert fill(f"sum(rate(a{{{matchers}}}[{{{{window}}}}]))") == f"sum(rate(a{{{filled}}}[1m]))"


def test_comments_are_left_out() -> None:
    """A comment may hold anything, even half a string."""
    assert fill('up{service="{{service}}"} # {{nobody}} says "') == 'up{service="payments-api"} '


@given(value=st.text(max_size=12).filter(str.isprintable), quote=st.sampled_from("\"'"))
def test_a_value_stays_inside_its_quotes(value: str, quote: str) -> None:
    """Whatever the value: the string that Prometheus reads back is that value, and nothing follows it."""
    text = fill(f"up{{service={quote}{{{{service}}}}{quote}}}", service=value)
    literal = text[len("up{service=") : -1]
    assert re.fullmatch(rf"{quote}(?:[^{quote}\\\n]|\\.)*{quote}", literal, re.DOTALL)
    assert unquote(literal) == value


@given(value=st.text(max_size=12).filter(str.isprintable))
def test_a_value_in_a_pattern_matches_only_itself(value: str) -> None:
    """Inside `=~` a value is a literal, however it reads as a regular expression."""
    text = fill('up{service=~"{{service}}"}', service=value)
    pattern = unquote(text[len("up{service=~") : -1])
    assert re.fullmatch(pattern, value)
    assert not re.fullmatch(pattern, value + "x")


@given(value=st.text(max_size=12).filter(str.isprintable))
def test_the_selector_is_found_whatever_the_value(value: str) -> None:
    """Braces, quotes and backslashes in a value do not hide the series from the question about their age."""
    query = QueryTemplate.parse('sum(rate(a{s="{{service}}",code=~"5.."}[{{window}}]))', "Q").fill(
        {**VALUES, "service": value}
    )
    assert len(query.selectors) == 1
    assert f"rate({query.selectors[0].series}[1m])" in query.text


@pytest.mark.parametrize("value", ["a\nb", "a\x00", "a\u202eb", "\ud800"])
def test_control_characters_are_refused(value: str) -> None:
    """No name of a service has them, and some would not even travel."""
    with pytest.raises(Invalid, match="service"):
        fill('up{service="{{service}}"}', service=value)


def test_a_backtick_cannot_stand_between_backticks() -> None:
    """There is no escape for it there, so it is refused instead of guessed."""
    with pytest.raises(Invalid, match="backtick"):
        fill("up{service=`{{service}}`}", service="a`b")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("up", "must select by"),
        ('up{namespace="{{namespace}}"}', "must select by"),
        ('sum("{{service}}")', "must select series with braces"),
        ("up{service={{service}}}", "must stand inside quotes"),
        ('up{service="{{servcie}}"}', "unknown placeholder {{servcie}}; known are {{namespace}}"),
        ('up{service="{{}}"}', "unknown placeholder"),
        ('up{service="{{service}}"} @ 1609746000', "must not use @"),
        ('up{service="{{service}}', "never ends"),
        ('up{service="\\{{service}}"}', "backslash right before"),
    ],
)
def test_templates_that_cannot_be_filled_safely_are_refused(template: str, words: str) -> None:
    """At the start, with the setting and the fix."""
    with pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        QueryTemplate.parse(template, "THE_QUERY")
    assert str(caught.value).startswith("THE_QUERY")


@pytest.mark.parametrize(
    ("template", "selectors"),
    [
        ('x{service="{{service}}"}', [("x", "")]),
        ('x {service="{{service}}"} [5m] offset 30s', [("x", "30s")]),
        ('{__name__="x",service="{{service}}"}', [("", "")]),
        ('a{service="{{service}}"} / b{service="{{service}}"} offset 1w', [("a", ""), ("b", "1w")]),
        ('a{service="{{service}}"} + a{service="{{service}}"}', [("a", "")]),
        ('sum by (le) (rate(job:a:rate5m{service="{{service}}"}[1m:5s]))', [("job:a:rate5m", "")]),
        ('label_replace(a{service="{{service}}"}, "x", "{b{c}", "y", "z{}")', [("a", "")]),
    ],
)
def test_the_series_a_query_reads_are_found(template: str, selectors: list[tuple[str, str]]) -> None:
    """Names, offsets and repeats; braces inside strings are no selectors."""
    found = QueryTemplate.parse(template, "Q").fill(VALUES).selectors
    assert [(s.series.partition("{")[0], s.offset) for s in found] == selectors


def test_an_offset_is_kept_in_the_question_about_age() -> None:
    """Delayed data is judged by its own clock."""
    selector = Selector(series="a{}", offset="1m30s")
    assert selector.instant() == "a{} offset 1m30s"
    assert selector.shift == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("90s", 90), ("1m30s", 90), ("2h", 7_200), ("1d", 86_400)]
)
def test_durations_are_read_as_prometheus_reads_them(text: str, seconds: float) -> None:
    """Units and sums of them."""
    assert parse_duration(text, "X").total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "1", "m", "-1m", "1 m", "1m ", "1.5m", "0s", "1M", "5m]", "999999999y"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Before it reaches a query, where it could close a bracket."""
    with pytest.raises(ConfigurationError, match="PROMETHEUS_WINDOW"):
        parse_duration(text, "PROMETHEUS_WINDOW")


def test_the_shipped_queries_are_sound() -> None:
    """Each default selects by namespace and service, over the window."""
    settings = Settings.model_validate({})
    for text in (
        settings.prometheus_error_rate_query,
        settings.prometheus_p95_query,
        settings.prometheus_request_rate_query,
    ):
        query = QueryTemplate.parse(text, "Q").fill(VALUES)
        assert query.selectors
        assert all(
            'namespace="payments",service="payments-api"' in selector.series for selector in query.selectors
        )
        assert "[1m]" in query.text
        assert "{{" not in query.text

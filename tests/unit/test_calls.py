"""What calls between services lead to: the services nearest to one, and those without a relation to it."""

from __future__ import annotations

from app.agent.ids import ServiceKey
from app.agent.services.calls import nearest, unrelated


def key(name: str) -> ServiceKey:
    return ServiceKey(environment="prod", service=name)


SHOP, CART, STOCK, DATABASE, MAIL = map(key, ("shop", "cart", "stock", "database", "mail"))
CALLS = {SHOP: (CART, STOCK), CART: (DATABASE,), STOCK: (DATABASE, SHOP)}


def test_direct_callees_come_before_those_behind_them() -> None:
    """Each once, without the service itself, although the calls lead back to it."""
    assert nearest(CALLS, SHOP, 8) == (CART, STOCK, DATABASE)
    assert nearest(CALLS, SHOP, 2) == (CART, STOCK)
    assert nearest(CALLS, MAIL, 8) == ()


def test_services_are_unrelated_where_no_call_leads_from_one_to_the_other() -> None:
    """In neither direction, however long the way; without any known call that is not known either."""
    assert unrelated(CALLS, SHOP, MAIL)
    assert unrelated(CALLS, MAIL, SHOP)
    assert not unrelated(CALLS, SHOP, DATABASE)
    assert not unrelated(CALLS, DATABASE, SHOP)
    assert unrelated({CART: (DATABASE,)}, CART, MAIL)
    assert not unrelated({}, SHOP, MAIL)

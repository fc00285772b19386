"""What is left on Heroku: the app, which contains everything else. App names are unique, so the name is the key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import requests

from infra.errors import ProbeError
from infra.leftovers.http import Response, request_json
from infra.leftovers.search import Leftover, SearchResult, StackLocation, iso_date, list_prices, run_probes

BASE = "https://api.heroku.com"
KEY_VARIABLE = "HEROKU_API_KEY"
NO_KEY = f"Heroku accepts no key: set {KEY_VARIABLE}, which `heroku authorizations:create` prints"
ACCEPT = "application/vnd.heroku+json; version=3"


def find_leftovers(location: StackLocation, base: str = BASE) -> SearchResult:
    """The app, if it exists. Raises ProbeError when Heroku accepts no key."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise ProbeError(NO_KEY)
    with requests.Session() as session:
        session.trust_env = False  # a .netrc would replace the key
        session.headers.update({"Accept": ACCEPT, "Authorization": f"Bearer {key}"})
        return run_probes({"app": lambda: _app(session, base, location.app)})


def _app(session: requests.Session, base: str, name: str) -> Iterator[Leftover]:
    response = request_json(session, "GET", f"{base}/apps/{name}")
    if response.status == 401:
        raise ProbeError(NO_KEY)
    if response.status in (403, 404):  # 403: someone else's, as names are unique across Heroku
        return
    app = _checked(response)
    formation = _checked(request_json(session, "GET", f"{base}/apps/{name}/formation"))
    remove = f"heroku apps:destroy --app {name} --confirm {name}"
    yield Leftover("Heroku app", app["name"], remove, iso_date(app.get("created_at")), _dynos_cost(formation))
    for addon in _checked(request_json(session, "GET", f"{base}/apps/{name}/addons")):
        plan = addon["plan"]["name"]
        remove = f"heroku addons:destroy {addon['name']} --app {name} --confirm {name}"
        since = iso_date(addon.get("created_at"))
        yield Leftover("Heroku add-on", addon["name"], remove, since, f"as plan {plan} costs")


def _dynos_cost(formation: list[dict[str, Any]]) -> str:
    """What its dynos cost; "" if none is set to run."""
    running = [(kind["quantity"], kind["size"].lower()) for kind in formation if kind["quantity"]]
    monthly_prices = [list_prices().get(f"heroku_{size.replace('-', '_')}_month") for _, size in running]
    sizes = ", ".join(f"{quantity} {size}" for quantity, size in running)
    if not running:
        return ""
    if None in monthly_prices:
        return f"dynos: {sizes}"
    total = sum(quantity * price for (quantity, _), price in zip(running, monthly_prices, strict=True) if price)
    return f"${total:,.2f} a month for {sizes}"


def _checked(response: Response) -> Any:
    if not response.ok:
        message = response.body.get("message") if isinstance(response.body, dict) else None
        raise ProbeError(f"{response.status}: {message or 'no reason given'}")
    return response.body

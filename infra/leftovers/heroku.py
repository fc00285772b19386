"""What is left on Heroku: the app, with which everything else goes. Apps have a name of their own, so it is the key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import requests

from infra.errors import ProbeError
from infra.leftovers.http import Answer, ask
from infra.leftovers.search import Findings, Leftover, Place, day, prices, search

BASE = "https://api.heroku.com"
KEY_VARIABLE = "HEROKU_API_KEY"
NO_KEY = f"Heroku knows no one here: set {KEY_VARIABLE}, which `heroku authorizations:create` makes"
ACCEPT = "application/vnd.heroku+json; version=3"


def find(place: Place, base: str = BASE) -> Findings:
    """The app, if it is there. Raises ProbeError when Heroku lets nobody in."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise ProbeError(NO_KEY)
    with requests.Session() as session:
        session.trust_env = False  # a .netrc would replace the key
        session.headers.update({"Accept": ACCEPT, "Authorization": f"Bearer {key}"})
        return search({"app": lambda: _app(session, base, place.app)})


def _app(session: requests.Session, base: str, name: str) -> Iterator[Leftover]:
    answer = ask(session, "GET", f"{base}/apps/{name}")
    if answer.status == 401:
        raise ProbeError(NO_KEY)
    if answer.status in (403, 404):  # 403: someone else's, for names are shared by all of Heroku
        return
    app = _checked(answer)
    formation = _checked(ask(session, "GET", f"{base}/apps/{name}/formation"))
    remove = f"heroku apps:destroy --app {name} --confirm {name}"
    yield Leftover("Heroku app", app["name"], remove, day(app.get("created_at")), _dynos_cost(formation))
    for addon in _checked(ask(session, "GET", f"{base}/apps/{name}/addons")):
        plan = addon["plan"]["name"]
        remove = f"heroku addons:destroy {addon['name']} --app {name} --confirm {name}"
        yield Leftover("Heroku add-on", addon["name"], remove, day(addon.get("created_at")), f"as plan {plan} costs")


def _dynos_cost(formation: list[dict[str, Any]]) -> str:
    """What its dynos cost; nothing where none is set to run."""
    running = [(kind["quantity"], kind["size"].lower()) for kind in formation if kind["quantity"]]
    known = [prices().get(f"heroku_{size.replace('-', '_')}_month") for _, size in running]
    sizes = ", ".join(f"{quantity} {size}" for quantity, size in running)
    if not running:
        return ""
    if None in known:
        return f"dynos: {sizes}"
    total = sum(quantity * price for (quantity, _), price in zip(running, known, strict=True) if price)
    return f"${total:,.2f} a month for {sizes}"


def _checked(answer: Answer) -> Any:
    if not answer.ok:
        said = answer.body.get("message") if isinstance(answer.body, dict) else None
        raise ProbeError(f"{answer.status}: {said or 'no reason given'}")
    return answer.body

"""How the account's list is paged, and when its end is known; decisions against services of several habits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_vidu.api.dialects import DIALECTS, EntV2
from airflow_provider_vidu.api.dialects.task_list import MAX_PAGES, Listing, Page, created_at, epoch_of
from airflow_provider_vidu.api.messages import TOO_LARGE, ApiAnswer
from airflow_provider_vidu.exceptions import ViduConfigError, ViduResponseError
from airflow_provider_vidu.models import Generation, GenerationStatus
from tests.rows import each_row

NOW = 1_800_000_000.0


def entry(name: object, *, age: float | None = 0.0, state: str = "success") -> Generation:
    """Return an entry that was created ``age`` seconds ago."""
    created = None if age is None else datetime.fromtimestamp(NOW - age, UTC)
    status = GenerationStatus.SUCCEEDED if state == "success" else GenerationStatus.RUNNING
    return Generation(id=str(name), status=status, provider_status=state, created_at=created)


class Service:
    """A list of generations that is served with habits of its own."""

    def __init__(self, count: int, *, tokens: bool = False, field: bool = True, pages: bool = True, most: int = 100):
        self.entries = [entry(number, age=number) for number in range(count)]
        self.tokens, self.field, self.pages, self.most = tokens, field, pages, most
        self.asked: list[dict[str, list[str]]] = []

    def page(self, query: str) -> Page:
        """Answer a request for a page."""
        asked = parse_qs(query)
        self.asked.append(asked)
        size = min(int(asked["pager.pagesz"][0]), self.most)
        token, number = asked.get("pager.page_token"), asked.get("pager.page", ["0"])
        start = int(token[0]) if token and self.tokens else int(number[0]) * size if self.pages else 0
        found = self.entries[start : start + size]
        more = start + size < len(self.entries)
        return Page(tuple(found), len(found), str(start + size) if self.tokens and more else None, self.field)


def walk(listing: Listing, service: Service) -> Listing:
    """Read a list to the end of the walk."""
    while (query := listing.query) is not None:
        listing.take(service.page(query))
    return listing


@each_row("count", [0, 3, 10, 99, 100, 101, 250])
@each_row(
    "habits",
    [{}, {"tokens": True}, {"most": 10}, {"field": False}],
    ids=["as documented", "with tokens", "ten a page", "no field for tokens"],
)
def test_every_page_is_read(count, habits):
    """All entries are found once, in order, and the end is known."""
    service = Service(count, **habits)
    listing = walk(Listing(), service)
    assert [found.id for found in listing.generations] == [str(number) for number in range(count)]
    # An empty list without the documented field may come from something that has no list.
    assert listing.ended is (count > 0 or habits.get("field", True))
    assert len(service.asked) <= count // habits.get("most", 100) + 2


@pytest.mark.parametrize("habits", [{"pages": False}, {"pages": False, "most": 20, "field": False}])
def test_a_service_that_repeats_its_first_page(habits):
    """Where paging is ignored, the walk ends and does not claim to have seen everything."""
    service = Service(150, **habits)
    listing = walk(Listing(), service)
    assert len(listing.generations) == habits.get("most", 100)
    assert not listing.complete
    assert len(service.asked) == 2


def test_a_list_that_reaches_back_far_enough_is_complete():
    """Sorted newest first and read back to the wanted time, one page proves as much as all."""
    service = Service(150, pages=False, field=False, most=20)
    assert walk(Listing(reach=NOW - 15), service).complete
    service.entries.reverse()
    assert not walk(Listing(reach=NOW - 140), service).complete


def test_a_token_that_is_ignored():
    """A service that hands out tokens and knows page numbers alone is read by page numbers."""
    service = Service(150)

    def page(query: str) -> Page:
        found = service.page(query)
        return Page(found.generations, found.count, "again" if len(service.asked) == 1 else None, True)

    listing = Listing()
    while (query := listing.query) is not None:
        listing.take(page(query))
    assert len(listing.generations) == 150


@pytest.mark.parametrize("token", ["more", None])
def test_an_empty_page(token):
    """An empty page with a further one does not end the walk; the same token twice does."""
    listing = Listing()
    while listing.query is not None:
        listing.take(Page((), 0, token, True))
    assert listing.complete is (token is None)


def test_an_answer_without_a_list():
    """What holds no list proves nothing."""
    listing = Listing()
    listing.take(Page())
    assert listing.query is None
    assert not listing.complete


def test_the_bounds():
    """The limit and the most pages end a walk that is not complete."""
    service = Service(10_000)
    limited = walk(Listing(limit=120), service)
    assert len(limited.generations) == 120
    assert not limited.complete
    assert len(service.asked) == 2
    assert Listing(limit=0).query is None
    assert len(walk(Listing(), service).generations) == MAX_PAGES * 100


@pytest.mark.fault("attacks", "a list of 50 pages of 16 MiB each, of entries that no filter names",
                   outcome="survived", seen="48 MiB are read, and of each entry a few words kept")  # fmt: skip
@pytest.mark.parametrize(("entries", "size", "pages"), [(4_000, 300_000, 2), (100, 16 * 1024 * 1024, 3), (100, 9, 50)])
def test_a_walk_is_bounded_in_all_that_it_keeps(entries, size, pages):
    """A page may have more entries than were requested, and megabytes: fifty took a triggerer two gigabytes."""
    listing, number = Listing(created_from=NOW, is_bare=True), 0
    while listing.query is not None:
        number += 1
        whole = entry("g", age=86_400.0).model_copy(update={"prompt": "a mill", "raw": {"prompt": "a mill"}})
        shown = tuple(whole.model_copy(update={"id": f"g{number}-{each}"}) for each in range(entries))
        listing.take(Page(shown, entries, f"token {number}", True, size))
    assert number == pages
    assert not listing.complete
    assert all((each.prompt, each.raw) == (None, {}) for each in listing._entries.values())


def test_an_entry_that_is_not_kept_whole():
    """Its id, its state and its time are; a time without a zone is none."""
    listing = Listing(is_bare=True)
    written = ["2027-01-15 08:00:00", "2027-01-15T08:00:00Z"]
    shown = tuple(entry(f"g{at}").model_copy(update={"raw": {"created_at": each}}) for at, each in enumerate(written))
    listing.take(Page(shown, 2, None, True))
    assert [created_at(each) for each in listing.generations] == [created_at(each) for each in shown] == [None, NOW]
    assert [each.provider_status for each in listing.generations] == ["success", "success"]


def test_what_is_asked():
    """Times are written in UTC, states are repeated, every request names the page's size."""
    listing = Listing(created_from=NOW, created_to=NOW + 1, states=["Success", "failed"])
    assert parse_qs(listing.query) == {
        "pager.pagesz": ["100"], "pager.page": ["0"], "states": ["success", "failed"],
        "created_at.from": ["2027-01-15T08:00:00Z"], "created_at.to": ["2027-01-15T08:00:01Z"],
    }  # fmt: skip


def test_filters_that_the_service_ignores():
    """What is shown although it was not asked for is omitted."""
    listing = Listing(created_from=NOW - 50, created_to=NOW - 1, states=["success"])
    shown = [entry("new"), entry("busy", age=10, state="processing"), entry("fits", age=10), entry("old", age=60)]
    listing.take(Page(tuple(shown), 4, None, True))
    assert [found.id for found in listing.generations] == ["fits"]


@pytest.mark.parametrize("states", [[""], [7]])
def test_states_that_are_no_words(states):
    """A state is a word of the service's."""
    with pytest.raises(ViduConfigError, match="the service's words"):
        Listing(states=states)


@pytest.mark.parametrize(
    "value", [datetime(2027, 1, 15, 8, tzinfo=UTC), "2027-01-15T08:00:00Z", NOW, None], ids=["aware", "ISO", "s", "no"]
)
def test_a_time_may_be_written_in_several_ways(value):
    """Aware datetimes, ISO 8601 and epoch seconds mean the same."""
    assert epoch_of("created_from", value) == (None if value is None else NOW)


@pytest.mark.parametrize("value", ["soon", True, datetime(2027, 1, 1)])  # noqa: DTZ001 - that it has no zone is the point
def test_what_is_no_time(value):
    """The message names the argument."""
    with pytest.raises(ViduConfigError, match="created_from must be a time"):
        epoch_of("created_from", value)


def answered(body: Any) -> ApiAnswer:
    """Return an answer of the list."""
    import json

    return ApiAnswer(200, {}, json.dumps(body).encode())


def test_a_page_of_the_official_api():
    """Documented entries show neither payload nor error code; one without an id is counted."""
    known = {"id": "911", "type": "text2video", "state": "failed", "model": "viduq3", "prompt": "a cat", "images": []}
    page = EntV2().read_page(answered({"tasks": [known, {"state": "success"}], "next_page_token": ""}))
    assert [found.id for found in page.generations] == ["911"]
    assert page.generations[0].failed
    assert (page.count, page.token, page.tells_end) == (2, None, True)


@pytest.mark.fault(
    "attacks", "a list's token for the next page has megabytes", outcome="clear error", side="API", says="characters"
)
def test_a_token_that_no_url_can_hold():
    """It is refused in clear words, and not sent back; one of the longest that is sent is."""
    shown = {"tasks": [{"id": "911", "state": "success"}]}
    assert EntV2().read_page(answered({**shown, "next_page_token": "t" * 4096})).token == "t" * 4096
    with pytest.raises(ViduResponseError, match="next_page_token has 4,097 characters"):
        EntV2().read_page(answered({**shown, "next_page_token": "t" * 4097}))


@pytest.mark.parametrize("body", [{"tasks": None}, {"data": []}, {}])
def test_an_answer_that_is_no_page(body):
    """Another body is not a list."""
    assert EntV2().read_page(answered(body)).count is None


def test_where_the_list_is():
    """The list lies beside the creates, also behind a prefix; vidu-native has none."""
    assert EntV2(create_path="/vidu/v2/{endpoint}").search("a=1").request.path == "/vidu/v2/tasks?a=1"
    assert {name for name, dialect in DIALECTS.items() if dialect.has_list} == {"ent-v2"}


@pytest.mark.parametrize("habits", [{}, {"tokens": True}], ids=["as documented", "with tokens"])
def test_a_page_that_is_too_large_begins_the_walk_again(habits):
    """With ten entries a page: all are found, none twice, and it shrinks once."""
    service = Service(130, **habits)
    listing = Listing()
    listing.take(service.page(listing.query))
    assert listing.shrink()
    walk(listing, service)
    assert [found.id for found in listing.generations] == [str(number) for number in range(130)]
    assert listing.complete
    assert not listing.shrink()
    assert {asked["pager.pagesz"][0] for asked in service.asked[1:]} == {"10"}


@pytest.mark.parametrize("count", [5_001, 60_000])
def test_a_page_of_countless_entries_is_too_large(count):
    """A hundred were asked for."""
    with pytest.raises(ViduResponseError) as caught:
        EntV2().read_page(ApiAnswer(200, {}, b'{"tasks":[' + b"{}," * count + b"{}]}", most_values=200_000))
    assert caught.value.code == TOO_LARGE


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (datetime.min.replace(tzinfo=UTC), "1970-01-01T00:00:01Z"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=12))), "1970-01-01T00:00:01Z"),
        (datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01T00:00:01Z"),
        (datetime.max.replace(tzinfo=UTC), "5138-11-16T09:46:40Z"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), "5138-11-16T09:46:40Z"),
    ],
)
def test_the_first_and_the_last_time(value, written):
    """They stand for "all". As a trigger's argument they are stored as numbers, which must be times, too."""
    at = epoch_of("since", value)
    assert epoch_of("since", at) == at
    query = parse_qs(Listing(created_from=at, created_to=at).query)
    assert query["created_at.from"] == query["created_at.to"] == [written]

"""Rows and checkpoints as items: the old form is still read, and no item grows towards what the database refuses."""

from dataclasses import replace

from analytics.adapters.clicks_items import Item, checkpoint_from, row_fields, row_from, row_key
from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import Day, Hour, RowId, TopId
from analytics.domain.labels import labels_of
from analytics.domain.ledger import Accounts
from analytics.domain.rows import AnyImage, Applied, Row, RowImage, TopRow, Visitors
from analytics.domain.sequences import Spool
from analytics.handlers.decoding import Skip, decode
from contracts.link import LinkKey, UserId
from tests.fakes.analytics_clicks import SPOOL, T0_MS, click, record

ROW = RowId(LinkKey("go.example.com/a#b"), Hour(495_013), 7)
AGENT = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"


def a_row(visitors: int, hosts: int) -> RowImage:
    """A row with so many visitors, who came from so many hosts and two thirds as many countries."""
    row = Row(ROW)
    row.applied = Applied(1, 2**40)
    for number in range(visitors):
        country = chr(65 + number % 26) + chr(65 + number // 26 % 26)
        host = f"https://{'x' * 40}{number % hosts}.example/"
        row.add_human(str(number).encode(), labels_of(country=country, referrer=host, user_agent=AGENT))
    return row.image()


def test_a_row_of_the_old_form_is_gone_on_from() -> None:
    """Form 1 had an attribute for each count; nothing of it is lost, and what is written next is of the new form."""
    old: Item = {
        "v": {"N": "1"},
        "ep": {"N": "2"},
        "off": {"N": "9"},
        "human": {"N": "2"},
        "bot": {"N": "3"},
        "pre": {"N": "4"},
        "vis": {"B": a_row(2, 1).visitors},
    }

    image = row_from(row_key(ROW) | old)

    assert isinstance(image, RowImage)
    assert (image.id, image.applied) == (ROW, Applied(2, 9))
    assert (image.human, image.bot, image.prefetches, image.labels) == (2, 3, 4, {})
    visitors = Visitors()
    visitors.add(image.visitors)
    assert visitors.estimate() == 2
    assert (
        row_from(row_key(ROW) | old | row_fields(image)) == image
    )  # what an update leaves of the old form is not read


def test_a_checkpoint_of_the_old_form_is_gone_on_from() -> None:
    """Sequences and counts of spools are what form 1 had."""
    item: Item = {
        "pk": {"S": "S#3"},
        "sk": {"S": "P7"},
        "v": {"N": "1"},
        "off": {"N": "41"},
        "at": {"N": str(T0_MS)},
        "spools": {"M": {SPOOL + "1": {"L": [{"N": "9"}, {"N": "8"}]}}},
    }

    assert checkpoint_from(item) == Checkpoint(7, 3, 41, T0_MS, Accounts({SPOOL + "1": Spool(9, 8)}))


def test_items_stay_small() -> None:
    """Most rows are billed as one kilobyte; the largest are far from what the database refuses (400 kB)."""
    one, usual, largest = a_row(1, 1), a_row(30, 5), a_row(5000, 5000)
    top = TopRow(TopId(3, UserId("user"), Day(20_000)))
    for number in range(5000):
        top.add(LinkKey(f"some-domain.example.com/{number:032d}"))

    sizes = [size_of(image) for image in (one, usual, replace(largest, human=2**60), top.image())]

    assert sizes[0] < 150
    assert sizes[1] < 1000
    assert sizes[2] < 10_000
    assert sizes[3] < 40_000


def test_the_longest_names_fit() -> None:
    """Four hundred links with the longest keys that are taken fit into a row; a longer one is no key."""
    longest = "ä" * 240
    top = TopRow(TopId(3, UserId("user"), Day(20_000)))
    for number in range(399):
        top.add(LinkKey(longest[2:] + f"{number:04}"))

    assert size_of(top.image()) < 250_000
    assert decode(record(0, click(longest)), "g").skip is None
    assert decode(record(0, click(longest + "a")), "g").skip is Skip.UNDECODABLE
    assert decode(record(0, click(user="x" * 481)), "g").skip is Skip.UNDECODABLE


def size_of(image: AnyImage) -> int:
    """Bytes of a row's one large attribute."""
    data = row_fields(image)["d"]["B"]
    assert isinstance(data, bytes)
    return len(data)

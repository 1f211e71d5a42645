"""Merkle arithmetic against published values, the naive tree, and the examples of the tile format."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.domain.checkpoint import Signer
from audit.domain.log import LogState, extend
from audit.domain.merkle import EMPTY, EMPTY_ROOT, TILE_WIDTH, grow, leaf_hash
from audit.domain.tiles import (
    CorruptError,
    Resource,
    decode_bundle,
    decode_hashes,
    encode_bundle,
    entries_path,
    hashes_path,
    width_at,
)
from audit.domain.verify import tree_hash, verify

# The leaves and roots that Certificate Transparency's implementations are tested with.
_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_SIGNER = Signer("log.example/audit/links-events/0", bytes(32))


@pytest.mark.rule("B3")
@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_rfc_6962(size: int) -> None:
    """Both ways to a root give the published one."""
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in _LEAVES[:size]]

    grown = grow(EMPTY, hashes).tree

    assert grown.root.hex() == tree_hash(hashes).hex() == _ROOTS[size]


def test_root_of_nothing() -> None:
    """The root of an empty tree is the hash of nothing."""
    assert EMPTY.root == EMPTY_ROOT == tree_hash([])


def test_tiles_of_the_formats_own_example() -> None:
    """70 000 leaves are 273 full tiles and one of 112, a full one and one of 17, and one of 1."""
    tiles = grow(EMPTY, [number.to_bytes(32, "big") for number in range(70_000)]).tiles

    widths = [[len(tile.hashes) for tile in tiles if tile.level == level] for level in range(4)]
    assert widths == [[256] * 273 + [112], [256, 17], [1], []]
    assert [tile.index for tile in tiles if tile.level == 0] == list(range(274))
    assert all(width_at(70_000, tile.level, tile.index) == len(tile.hashes) for tile in tiles)


@pytest.mark.rule("B1", "B3")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=8))
def test_any_batching_makes_the_same_log(batches: list[int]) -> None:
    """However entries arrive, the files that a checkpoint needs are there, and prove all under the naive root."""
    entries = [b"entry %d" % number for number in range(sum(batches))]
    files: dict[str, bytes] = {}
    state = LogState()
    done = 0

    for count in batches:
        extension = extend(state, entries[done : done + count])
        for resource in (*extension.entries, *extension.tiles):
            assert files.setdefault(resource.path, resource.data) == resource.data
        for folder in extension.outlived:
            files = {path: data for path, data in files.items() if not path.startswith(f"{folder}/")}
        state = LogState(extension.tree, extension.bundle)
        done += count
        files["checkpoint"] = _SIGNER.sign(state.tree.size, state.tree.root)
        assert state.tree.root == tree_hash([leaf_hash(entry) for entry in entries[:done]])

    if batches:
        found = verify(files.get, _SIGNER.verifier)
        assert found.entries == tuple(entries)
    assert state.tree == grow(EMPTY, [leaf_hash(entry) for entry in entries]).tree


@pytest.mark.rule("B3")
@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
def test_every_flipped_bit_and_every_missing_file_is_found(size: int) -> None:
    """Whichever file is damaged or gone, verification fails and names something."""
    extension = extend(LogState(), [b"entry %d" % number for number in range(size)])
    files = {resource.path: resource.data for resource in (*extension.entries, *extension.tiles)}
    files["checkpoint"] = _SIGNER.sign(size, extension.tree.root)
    assert verify(files.get, _SIGNER.verifier).checkpoint.size == size

    for path, data in files.items():
        without = {other: content for other, content in files.items() if other != path}
        with pytest.raises(CorruptError):
            verify(without.get, _SIGNER.verifier)
        for at in {0, len(data) // 2, len(data) - 2}:
            damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            with pytest.raises(CorruptError):
                verify({**files, path: damaged}.get, _SIGNER.verifier)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (hashes_path(0, 0), "tile/0/000"),
        (hashes_path(0, 273, 112), "tile/0/273.p/112"),
        (hashes_path(1, 1234067), "tile/1/x001/x234/067"),
        (hashes_path(63, 1000, 1), "tile/63/x001/000.p/1"),
        (entries_path(999), "tile/entries/999"),
        (entries_path(1_000_000, 255), "tile/entries/x001/x000/000.p/255"),
    ],
)
def test_paths_are_those_of_the_format(path: str, expected: str) -> None:
    """Index elements have three digits, all but the last an x before them; partial tiles a width."""
    assert path == expected


@given(st.lists(st.binary(max_size=300), max_size=TILE_WIDTH))
def test_bundles_come_back_whole_or_not_at_all(entries: list[bytes]) -> None:
    """What is encoded is decoded; a bundle that was cut within an entry is refused."""
    data = encode_bundle(entries)

    assert decode_bundle(Resource("tile/entries/000", data)) == tuple(entries)
    if data:
        with pytest.raises(CorruptError, match="tile/entries/000"):
            decode_bundle(Resource("tile/entries/000", data[:-1]))


def test_what_does_not_fit_is_refused() -> None:
    """An entry has at most 65 535 bytes, and a tile holds whole hashes."""
    assert decode_bundle(Resource("x", encode_bundle([bytes(65_535)]))) == (bytes(65_535),)
    with pytest.raises(ValueError, match="longer"):
        encode_bundle([bytes(65_536)])
    with pytest.raises(CorruptError, match="within a hash"):
        decode_hashes(Resource("x", bytes(33)))

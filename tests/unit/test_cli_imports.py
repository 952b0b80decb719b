"""MovieLens as rows of the contracts."""

from collections import defaultdict

import pytest
from feedrank_cli.errors import CommandError
from feedrank_cli.imports.contract_rows import for_lake
from feedrank_cli.imports.formats import movielens


def bring(folder):
    """Rows by topic and refusals of all three files, as the lake would take them."""
    rows, refusals = defaultdict(list), []
    for source in movielens.sources(folder, None):
        for piece in source.read(0, columns=None):
            found = for_lake(piece, source.topic, None, "x")
            refusals += found.refusals
            for batch in found.batches:
                rows[batch.topic] += batch.rows
    return rows, refusals


def recbole(folder, ratings="196\t242\t3\t881250949\n196\t1\t4\t881250950\n"):
    (folder / "ml-100k.inter").write_text("user_id:token\titem_id:token\t...\n" + ratings)
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n242\tKolya\t1996\tComedy\n"
    )
    (folder / "ml-100k.user").write_text("user_id:token\tage:token\n196\t49\tM\twriter\t55105\n")


def test_every_rating_is_an_impression_and_from_4_on_a_like_with_its_request(tmp_path):
    recbole(tmp_path)
    rows, _ = bring(tmp_path)
    assert [row["item_id"] for row in rows["impressions"]] == ["242", "1"]
    assert [row["item_id"] for row in rows["interactions"]] == ["1"]
    assert rows["interactions"][0]["request_id"] == rows["impressions"][1]["request_id"]
    assert rows["interactions"][0]["accepted_at"] == rows["interactions"][0]["occurred_at"]


def test_both_layouts_of_movielens_say_the_same(tmp_path):
    one, other = tmp_path / "recbole", tmp_path / "original"
    one.mkdir()
    other.mkdir()
    recbole(one)
    (other / "u.data").write_text("196\t242\t3\t881250949\n196\t1\t4\t881250950\n")
    flags = {"Animation", "Children's", "Comedy"}
    toy = "|".join("1" if genre in flags else "0" for genre in movielens.GENRES)
    kolya = "|".join("1" if genre == "Comedy" else "0" for genre in movielens.GENRES)
    (other / "u.item").write_bytes(
        f"1|Toy Story (1995)|01-Jan-1995||http://x|{toy}\n"
        f"242|Kolya (1996)|24-Jan-1996||http://x|{kolya}\n".encode("latin-1")
    )
    (other / "u.user").write_text("196|49|M|writer|55105\n")
    assert bring(one) == bring(other)


def test_a_line_that_cannot_be_read_is_refused_with_its_number_and_the_rest_comes_in(tmp_path):
    recbole(tmp_path, "196\t242\t9\t881250949\nrubbish\n196\t1\t4\t881250950\n")
    rows, refusals = bring(tmp_path)
    assert [refusal.number for refusal in refusals] == [2, 3]
    assert "rating: 9" in refusals[0].reason
    assert len(rows["impressions"]) == 1


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("inter", "196\t242\t3\t1e30", "timestamp: '1e30'"),
        ("inter", "196\t242\t3\tinf", "timestamp: 'inf'"),
        ("inter", "196\t242\t3\tNaN", "timestamp: is NaN"),
        ("inter", "196\t242\t3\tabc", "timestamp: 'abc' is no number"),
        ("inter", "196\t242\tabc\t881250949", "rating: 'abc' is no number"),
        ("inter", "196\t242\t3", "timestamp: is missing"),
        ("user", "196", "age: is missing"),
        ("user", "196\t4x\tM", "age: '4x' is no number"),
        ("user", "196\t-1\tM", "age: -1 is below 0"),
        ("user", "196\tinf\tM", "age: 'inf' is no whole number"),
        ("item", "1\tToy Story\t1995", "class: is missing"),
    ],
)
def test_a_line_is_refused_by_the_name_of_its_field(tmp_path, file, line, reason):
    recbole(tmp_path)
    path = tmp_path / f"ml-100k.{file}"
    path.write_text(f"{path.read_text()}{line}\n")
    _, (refusal,) = bring(tmp_path)
    assert refusal.reason.startswith(reason)


def test_the_item_says_what_movielens_knows_and_a_studio_of_its_decade(tmp_path):
    recbole(tmp_path)
    item = bring(tmp_path)[0]["items"][0]
    assert item["category"] == "Animation"
    assert item["tags"] == ("Animation", "Children's", "Comedy")
    assert item["creator_id"] == "studio-1990s"
    assert item["created_at"].year == 1995


def test_reading_goes_on_behind_the_line_it_came_to(tmp_path):
    recbole(tmp_path)
    ratings = movielens.sources(tmp_path, None)[2]
    (piece,) = ratings.read(2, columns=None)
    assert {row.number for row in piece.rows} == {3}
    assert piece.end == 3


def test_a_folder_without_ratings_or_with_a_file_missing_is_told(tmp_path):
    with pytest.raises(CommandError, match=r"holds no ml-100k.inter or u.data"):
        movielens.sources(tmp_path, None)
    recbole(tmp_path)
    (tmp_path / "ml-100k.user").unlink()
    with pytest.raises(CommandError, match=r"ml-100k.user does not exist"):
        movielens.sources(tmp_path, None)

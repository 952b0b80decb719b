from collections import defaultdict
from dataclasses import dataclass, field

from feedrank_cli.imports import movielens
from feedrank_cli.imports.landing import Landing
from feedrank_cli.settings import Settings


@dataclass
class Kept(Landing):
    """Keeps rows in memory in place of the lake."""

    rows: dict[str, list] = field(default_factory=lambda: defaultdict(list))

    def to_lake(self, topic, rows, *, source, chunk):
        self.rows[topic] += rows


def bring(folder, tmp_path):
    landing = Kept(Settings(home=tmp_path), tmp_path / "rejects.jsonl")
    movielens.bring(folder, landing)
    return landing


def recbole(folder, ratings="196\t242\t3\t881250949\n196\t1\t4\t881250950\n"):
    (folder / "ml-100k.inter").write_text("user_id:token\titem_id:token\t...\n" + ratings)
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n242\tKolya\t1996\tComedy\n"
    )
    (folder / "ml-100k.user").write_text("user_id:token\tage:token\n196\t49\tM\twriter\t55105\n")


def test_every_rating_is_an_impression_and_from_4_on_a_like_with_its_request(tmp_path):
    recbole(tmp_path)
    rows = bring(tmp_path, tmp_path).rows
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
    assert bring(one, tmp_path).rows == bring(other, tmp_path).rows


def test_a_line_that_cannot_be_read_is_refused_with_its_number_and_the_rest_comes_in(tmp_path):
    recbole(tmp_path, "196\t242\t9\t881250949\nrubbish\n196\t1\t4\t881250950\n")
    landing = bring(tmp_path, tmp_path)
    refused = (tmp_path / "rejects.jsonl").read_text()
    assert landing.rejected == 2
    assert '"line": 2' in refused
    assert '"line": 3' in refused
    assert "rating: 9" in refused
    assert len(landing.rows["impressions"]) == 1


def test_the_item_says_what_movielens_knows_and_a_studio_of_its_decade(tmp_path):
    recbole(tmp_path)
    item = bring(tmp_path, tmp_path).rows["items"][0]
    assert item["category"] == "Animation"
    assert item["tags"] == ("Animation", "Children's", "Comedy")
    assert item["creator_id"] == "studio-1990s"
    assert item["created_at"].year == 1995

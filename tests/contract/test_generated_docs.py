from pathlib import Path

import pytest
from feedrank_cli.generate_docs import pages

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_generated_page_is_current(name):
    assert (DOCS / name).read_text() == pages()[name], "run `make docs`"

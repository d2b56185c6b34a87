"""The pinned parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from immunogate.download import copy_from
from immunogate.recipes import RECIPES


def test_the_recipes_are_pinned() -> None:
    for recipe in RECIPES.values():
        assert recipe.url.startswith("https://")
        assert "/main/" not in recipe.url
        assert "/master/" not in recipe.url
        assert recipe.url.endswith(recipe.file)


@pytest.mark.data
def test_the_recipe_of_yunet_is_the_file_of_the_development_data(data_dir: Path, tmp_path: Path) -> None:
    recipe = RECIPES["yunet"]
    path, _ = copy_from(recipe, data_dir / "models" / recipe.file, tmp_path)
    assert path.stat().st_size == recipe.bytes

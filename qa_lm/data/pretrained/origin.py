"""What a pretrained model says about itself: its name on the hub and its licence."""

from pathlib import Path
from typing import Any

import yaml

from qa_lm.data.cache import META
from qa_lm.data.pretrained.place import HUB_NAME, Base
from qa_lm.data.tokenizer import json_object


def base_origin(base: Base) -> dict[str, str]:
    """The hub name and the licence of a pretrained model, as far as it names them.

    They are in the model card of a folder, in the fields of a GGUF file, or in the name itself.
    """
    card, meta = _front_matter(base.folder / "README.md"), json_object(base.folder / META)
    licence = card.get("license") or meta.get("license")
    named = json_object(base.folder / "config.json").get("_name_or_path") or meta.get("base_model")
    name = next((each for each in (base.name, named) if _is_hub_name(each)), None)
    found = {"base_model": name, "base_license": licence}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _is_hub_name(name: Any) -> bool:
    if not isinstance(name, str) or Path(name).expanduser().exists():
        return False
    return name.count("/") == 1 and HUB_NAME.fullmatch(name) is not None and not name.startswith(".")


def _front_matter(path: Path) -> dict[str, Any]:
    """The settings at the beginning of a model card."""
    try:
        begin, text, *_ = path.read_text(encoding="utf-8").split("---\n", 2)
        content = yaml.safe_load(text) if not begin else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}

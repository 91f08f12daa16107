"""What every table of a config has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator


class Section(BaseModel):
    """A table of the config: unknown keys are refused, values cannot be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


def told_by(name: str, default: str | None = None) -> Discriminator:
    """Tells the kind of a table, of several that there may be, by the word at a key."""

    def tag(table: Any) -> Any:
        found = (
            table.get(name, default) if isinstance(table, dict) else getattr(table, name, default)
        )
        return found if isinstance(found, str) else None

    return Discriminator(tag)

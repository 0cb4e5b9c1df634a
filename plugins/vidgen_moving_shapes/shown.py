"""What a caption says is to be seen: one object, or one in front of another, on a ground; a motion is passed over."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vidgen_core.errors import BadRequest
from vidgen_moving_shapes.captions import image_caption, image_pair_caption
from vidgen_moving_shapes.palette import COLOURS, GROUNDS
from vidgen_moving_shapes.shapes import SHAPES
from vidgen_moving_shapes.world import Entity

WHERE = {1: ("",), 2: ("front_", "back_")}
"""What the names of attributes begin with, for so many objects, from front to back."""


@dataclass(frozen=True)
class Shown:
    """Objects from front to back, one or two, and their ground."""

    entities: tuple[Entity, ...]
    ground: str

    @property
    def caption(self) -> str:
        """As image models are told it."""
        front, *behind = self.entities
        return image_pair_caption(front, behind[0], self.ground) if behind else image_caption(front, self.ground)

    @property
    def attributes(self) -> dict[str, str]:
        """``colour``, ``shape`` and ``ground``; of two objects ``front_colour``, ``back_shape`` and their like."""
        found: dict[str, str] = {}
        for where, entity in zip(WHERE[len(self.entities)], self.entities, strict=True):
            found |= {f"{where}colour": entity.colour, f"{where}shape": entity.shape}
        return found | {"ground": self.ground}

    def changed(self, attribute: str, value: str) -> Shown:
        """The same with one attribute, by its name in ``attributes``, of another value."""
        if attribute == "ground":
            return replace(self, ground=value)
        where, _, name = attribute.rpartition("_")
        entities = [
            replace(entity, **{name: value}) if prefix.rstrip("_") == where else entity
            for prefix, entity in zip(WHERE[len(self.entities)], self.entities, strict=True)
        ]
        return replace(self, entities=tuple(entities))


def read_caption(caption: str) -> Shown:
    """What an image caption or a clip's caption says, of one object or of two.

    Raises BadRequest for a caption that is none of this world's.
    """
    words = caption.lower().replace(".", " ").replace(",", " ").split()
    colours, shapes, grounds = ([word for word in words if word in known] for known in (COLOURS, SHAPES, GROUNDS))
    if len(colours) != len(shapes) or len(colours) not in WHERE or len(grounds) != 1:
        raise BadRequest(
            f"The caption '{caption}' is none of Moving Shapes. The oracle of edits reads 'a red circle on a white "
            "background', and 'a red circle in front of a blue square on a white background'."
        )
    entities = [Entity(*pair) for pair in zip(colours, shapes, strict=True)]
    return Shown(tuple(reversed(entities) if "behind" in words else entities), grounds[0])

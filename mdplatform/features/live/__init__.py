"""Live features: the values of a catalogue at each new bar, from state that is kept, equal to those of a batch."""

from mdplatform.features.live.ability import can_be_live, load_live_from
from mdplatform.features.live.live import LiveFeatures, LiveValues

__all__ = ["LiveFeatures", "LiveValues", "can_be_live", "load_live_from"]

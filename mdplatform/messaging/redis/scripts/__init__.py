"""The steps of a request's life as Lua scripts: each is atomic, so that a crash falls between two, never into one.

Each script has `KEYS[1]`, the prefix of all keys, and the functions of `script`. All may be called again after a
lost answer: who settles or admits gives a nonce, so that it knows its own work again; what acts on a delivery is fenced
by its attempt, so that a worker from which it was taken away cannot park, keep or bury it any more.

A record's fields: `priority deadline sent_at body strategy label standing` (the envelope), `nonce` (of the admission),
`to` (addresses), `stage`, `entry` (its one valid entry in the queue), `attempts`, `holder`, `turn` (when it was taken),
`returned` and `note`, `again` (release at once when it parks), `needs`, `wanted` (those needs that a run is to bring),
`runs` (which run brought them: lines of need and run id), `told` (the last number), `settler` (nonce of the
settlement) and `answer`.
"""

from mdplatform.messaging.redis.scripts.asking import ADMIT, LOOK_UP, READ, SETTLE
from mdplatform.messaging.redis.scripts.looking import DISCARD, IN_FLIGHT, RELEASE_IDS, STRANDED, TRIM_WANTED
from mdplatform.messaging.redis.scripts.script import Script
from mdplatform.messaging.redis.scripts.working import BURY, KEEP, PARK, RECLAIM, RELEASE, TAKE, TELL, TIDY

__all__ = [
    "ADMIT",
    "BURY",
    "DISCARD",
    "IN_FLIGHT",
    "KEEP",
    "LOOK_UP",
    "PARK",
    "READ",
    "RECLAIM",
    "RELEASE",
    "RELEASE_IDS",
    "SETTLE",
    "STRANDED",
    "TAKE",
    "TELL",
    "TIDY",
    "TRIM_WANTED",
    "Script",
]

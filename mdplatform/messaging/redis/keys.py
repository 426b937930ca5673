"""Where the requests lie in Redis. All keys have one hash tag, so that one script may use several, in a cluster too.

    mdp:{requests}:queue:HIGH        stream of a class, read by the group `workers`; an entry has only the request's id
    mdp:{requests}:record:<id>       hash: the envelope and where it is; once settled, the tombstone with the answer
    mdp:{requests}:open              sorted set: ids that are not settled, by deadline
    mdp:{requests}:standing          set: standing requests that were parked once; they don't count as in flight
    mdp:{requests}:settled           sorted set: ids of tombstones, by when they go
    mdp:{requests}:answers           list: ids whose answers are kept, oldest first; `answer_bytes` is their size
    mdp:{requests}:parked:<need>     sorted set: ids that wait for a need, by the turn at which they were parked
    mdp:{requests}:turn              counter of releases; `released` is a sorted set of needs by their last turn
    mdp:{requests}:replies:<stream>  stream of replies for an address; an entry has `id`, `final`, `to`, `size`
                                     (what it counts for), and `body`, or `fetched`: so many bytes lie in the record
    mdp:{requests}:addresses         sorted set: reply streams, by when they go if nobody reads them
    mdp:{requests}:reply_bytes       sorted set: reply streams, by their bytes; `all_reply_bytes` is their sum
    mdp:{requests}:wanted            stream for the run path, bounded by `wanted_bytes`
    mdp:{requests}:lineage           stream of the outbox; so `changes` (needs) and `dead`
    mdp:{requests}:beat:<worker>     what a worker said of itself, with an expiry; `workers` are their names

Only `beat`, and what bridges keep of askers over RabbitMQ (`rabbitmq.scripts`), have an expiry of Redis's own: what has
one may be evicted when memory is short, and a tombstone must not be. All else is swept by the scripts.
An address is `<stream>` or `<stream>/<route>`; the route is given back as `to`.
"""

from __future__ import annotations

from mdplatform.messaging.priority import DataPriority

PREFIX = "mdp:{requests}:"
GROUP = "workers"
WANTED = f"{PREFIX}wanted"
LINEAGE = f"{PREFIX}lineage"
CHANGES = f"{PREFIX}changes"
DEAD = f"{PREFIX}dead"
DEAD_KEPT = 10_000
CHANGES_KEPT = 50_000
LINEAGE_KEPT = 100_000


def queue_key(priority: DataPriority) -> str:
    """Give the key of the stream of a class.

    >>> queue_key(DataPriority.HIGH)
    'mdp:{requests}:queue:HIGH'
    """
    return f"{PREFIX}queue:{priority.value}"


def record_key(id: str) -> str:
    """Give the key of what is known of a request."""
    return f"{PREFIX}record:{id}"


def replies_key(address: str) -> str:
    """Give the key of the stream in which the replies for an address come.

    >>> replies_key("rabbitmq/amq.gen-1")
    'mdp:{requests}:replies:rabbitmq'
    """
    return f"{PREFIX}replies:{address.partition('/')[0]}"

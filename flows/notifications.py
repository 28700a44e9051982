"""Messages about alerts through Prefect's notification blocks; every other channel as ever."""

from __future__ import annotations

import re
from typing import Any, cast

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.exceptions import PrefectException

from mosaic_core.monitoring import sending
from mosaic_core.monitoring.channels import Channel, PrefectBlock
from mosaic_core.monitoring.message import Message

_URL = re.compile(r"\w+://\S+")


def deliver(channel: Channel, message: Message) -> str:
    """Send a message from inside a flow or task; returns what went wrong, or nothing.

    Problems of a block are told without any URL in them: those of most receivers are secrets.
    """
    if not isinstance(channel.transport, PrefectBlock):
        return sending.deliver(channel, message)
    if channel.off:
        return channel.off
    name = channel.value("block")
    try:
        block = cast(Any, Block.load(name))
    except (ValueError, PrefectException) as error:
        return f"there is no block {name} ({type(error).__name__}): make it in the Prefect UI"
    if not isinstance(block, NotificationBlock):
        return f"the block {name} cannot notify: it is a {type(block).__name__}"
    try:
        with block.raise_on_failure():
            cast(Any, block).notify(message.body, message.title)
    except Exception as error:  # a block is anybody's code
        return f"the block {name} failed: {type(error).__name__}: {_URL.sub('***', str(error))}"
    return ""

"""What a task waits for that no agent has, in words."""

from collections import Counter
from collections.abc import Collection

from core.contract.agent import Agent, Gpu
from core.contract.needs import Need


def lack(need: Need, agents: Collection[Agent]) -> str | None:
    """None: an agent that is there can serve it, so a task merely waits its turn. Consumers of version 1 don't say that
    they are there, nor do agents of an older version.
    """
    there = [agent for agent in agents if agent.is_there]
    if not need.gpu_count:
        return _at_work("an agent", there) if there else "an agent: none is there"
    if not any(agent.gpus for agent in there):
        return f"{need}: no agent with a GPU is there"
    able = [agent for agent in there if agent.has(need)]
    if not able:
        largest = max(there, key=lambda agent: (sum(need.fits(gpu.memory_mb) for gpu in agent.gpus), len(agent.gpus)))
        return f"{need}: the largest agent there has {_listed(largest.gpus)}"
    well = [agent for agent in able if agent.has(need, well=True)]
    if not well:
        unwell = (f"{gpu.uuid}: {gpu.problem}" for agent in able for gpu in agent.gpus if gpu.problem)
        return f"{need} in order: {'; '.join(unwell)}"
    return _at_work(str(need), well)


def _at_work(wanted: str, agents: Collection[Agent]) -> str | None:
    """Whether one of those that have what is wanted takes tasks at all."""
    if any(not agent.problems for agent in agents):
        return None
    problems = (f"{agent.name}: {words}" for agent in agents for words in agent.problems.values())
    return f"{wanted} of an agent that takes tasks: {'; '.join(problems)}"


def _listed(gpus: Collection[Gpu]) -> str:
    """`2 with 24576 MB and 1 with 81920 MB`"""
    sizes = Counter(gpu.memory_mb for gpu in gpus)
    return " and ".join(
        f"{count} with {memory_mb} MB" if memory_mb else f"{count} of unknown memory"
        for memory_mb, count in sizes.items()
    )

"""What a task waits for that no agent has, in words."""

from collections import Counter
from collections.abc import Iterable

from core.contract.agent import Agent, Gpu
from core.contract.needs import Need


def lack(need: Need, agents: Iterable[Agent]) -> str | None:
    """None: an agent that is there can serve it, so that a task merely waits its turn. Consumers of version 1 don't say
    that they are there, nor do agents of an older version.
    """
    there = [agent for agent in agents if agent.is_there]
    able = [agent for agent in there if agent.has(need)]
    well = [agent for agent in able if agent.has(need, well=True)]
    if any(not agent.problems for agent in well):
        return None
    if not need.gpu_count and not there:
        return "an agent: none is there"
    if need.gpu_count and not any(agent.gpus for agent in there):
        return f"{need}: no agent with a GPU is there"
    if not able:
        largest = max(there, key=lambda agent: (sum(need.fits(gpu.memory_mb) for gpu in agent.gpus), len(agent.gpus)))
        return f"{need}: the largest agent there has {_listed(largest.gpus)}"
    if not well:
        unwell = (f"{agent.name}: {gpu.uuid}: {gpu.problem}" for agent in able for gpu in agent.gpus if gpu.problem)
        return f"{need} that {'is' if need.gpu_count == 1 else 'are'} well: {'; '.join(unwell)}"
    wanted = f"an agent with {need}" if need.gpu_count else "an agent"
    problems = (f"{agent.name}: {words}" for agent in well for words in agent.problems.values())
    return f"{wanted} that takes tasks: {'; '.join(problems)}"


def _listed(gpus: Iterable[Gpu]) -> str:
    """`2 with 24576 MB and 1 with 81920 MB`"""
    sizes = Counter(f"with {gpu.memory_mb} MB" if gpu.memory_mb else "of unknown memory" for gpu in gpus)
    return " and ".join(f"{count} {size}" for size, count in sizes.items())

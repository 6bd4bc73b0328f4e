"""What travels between gateway, core and agents: types, states, errors. Pure: no IO, nothing of ours imported."""

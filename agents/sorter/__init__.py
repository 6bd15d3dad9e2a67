"""The sorter sends the verdicts of a line to the board, and records what the gate did (`castings.sorted`).

- `process`: the sorters of one board.
- `sorter`: the sorter of one line.
- `decisions`: decides what to send to the board and what to record.
- `part_states`: remembers what is known about each part.
- `part_reports`: tells the gateway which parts were counted.
- `line_commands`: executes the commands of people.
- `board_questions`: asks the board on behalf of a person.
- `teaching`, `passed_castings`: a session of `castline board teach`.
- `command_socket`: takes commands from the command line.
- `command_topic`: takes commands from the station.
"""

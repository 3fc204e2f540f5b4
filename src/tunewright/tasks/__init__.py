"""What a model can learn to do: one file a task, one interface (``tasks/interface.py``)."""

from tunewright.tasks.chat import ChatTask
from tunewright.tasks.interface import Question, Task

TASKS: dict[str, Task] = {task.name: task for task in (ChatTask(),)}

__all__ = ["TASKS", "Question", "Task"]

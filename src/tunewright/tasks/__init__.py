"""What a model can learn to do: one file a task, one interface (``tasks/interface.py``)."""

from tunewright.recipe.schema import Recipe
from tunewright.tasks.chat import ChatTask
from tunewright.tasks.classify import LinearTask
from tunewright.tasks.interface import JoiningTask, LabelTask, Question, Task
from tunewright.tasks.label_token import LabelTokenTask
from tunewright.tasks.pretrain import PretrainTask
from tunewright.tasks.seq2seq import Seq2SeqTask

TASKS: dict[str, Task] = {
    task.name: task for task in (ChatTask(), LinearTask(), LabelTokenTask(), Seq2SeqTask(), PretrainTask())
}


def task_of(recipe: Recipe) -> Task:
    """The task of a recipe in which task and head are chosen."""
    name = recipe.classify.head if recipe.task == "classify" else recipe.task
    assert name != "auto", "train/decide.py chooses task and head first"
    return TASKS[name]


__all__ = ["TASKS", "JoiningTask", "LabelTask", "Question", "Task", "task_of"]

"""Every data set by name. Adding one is its file, its test, and a line here; one's own is named `module:Class`."""

import importlib
import inspect
from collections.abc import Mapping
from difflib import get_close_matches  # not drnet.guess: data sets know nothing of the model's folder
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from drnet.datasets.contract import DataError, DataSet, Limited, Setting

BUILDERS: Mapping[str, str] = {
    "mnist": "drnet.datasets.mnist:BouncingDigits",
    "norb": "drnet.datasets.norb:SmallNorb",
    "chairs": "drnet.datasets.chairs:Chairs",
    "kth": "drnet.datasets.kth:Kth",
    "videos": "drnet.datasets.videos:Videos",
    "frames": "drnet.datasets.frames:Frames",
}
NEEDED = ("about", "labels", "parameters", "sources", "frame_shape", "count", "item", "clips")


def data_set_class(name: str) -> type[DataSet]:
    """Return a data set's class.

    Args:
        name: one of `BUILDERS`, or `module:Class` of a module that Python finds.

    Raises:
        DataError: where there is none.
    """
    module, _, inner = BUILDERS.get(name, name).partition(":")
    if not inner:
        known, meant = ", ".join(BUILDERS), get_close_matches(name.casefold(), BUILDERS, 1)
        guess = f" (did you mean '{meant[0]}'?)" if meant else ""
        raise DataError(f"data set '{name}' is not known{guess}; there are {known}; one's own is named module:Class")
    try:
        kind = getattr(importlib.import_module(module), inner)
    except ModuleNotFoundError as error:
        if error.name != module:  # the module is there, and needs something that is not
            raise
        raise DataError(f"module '{module}' of data set '{name}' is not found; run from its folder") from None
    except AttributeError:
        raise DataError(f"module '{module}' has no class '{inner}', which data set '{name}' names") from None
    missing = [part for part in NEEDED if not hasattr(kind, part)]
    if not inspect.isclass(kind) or missing:
        lacks = f"it lacks {', '.join(missing)}" if inspect.isclass(kind) else "it is no class"
        raise DataError(f"'{name}' is not a data set: {lacks}; see drnet.datasets.contract.DataSet")
    return cast(type[DataSet], kind)


def settings_of(kind: type[DataSet]) -> dict[str, tuple[Any, Setting, Any]]:
    """Return what a user may set of a data set: for each name the type, the setting, and the default.

    These are the arguments of its constructor that are annotated with a `Setting`; without a default it is `...`.
    """
    hints = get_type_hints(kind.__init__, include_extras=True)
    found: dict[str, tuple[Any, Setting, Any]] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        hint = hints.get(name)
        setting = next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Setting)), None)
        if setting is not None and get_origin(hint) is Annotated:
            default = ... if parameter.default is parameter.empty else parameter.default
            found[name] = (get_args(hint)[0], setting, default)
    return found


def restore(name: str, parameters: Mapping[str, Any] | None, **others: Any) -> DataSet:
    """Make the data set that has these parameters, as a manifest records them.

    Args:
        name: as of `data_set_class`.
        parameters: as `DataSet.parameters` returned them; None: its defaults.
        others: arguments that are no parameters; `source`, where the raw files are, whatever the class calls it.

    Raises:
        DataError: where the class does not take them, or needs others.
    """
    kind = data_set_class(name)
    taken, settings = inspect.signature(kind).parameters, settings_of(kind)
    place = next((key for key, found in settings.items() if found[1].is_source), "source")
    if "source" in others:
        others[place] = others.pop("source")
    given = {key: value for key, value in {**(parameters or {}), **others}.items() if key in taken}
    lacking = {key for key, found in settings.items() if found[2] is ... and key not in given}
    if place not in others and (place in lacking or (place != "source" and place in (parameters or {}))):
        raise DataError(f"data set '{name}' is made from files; say where they are: --source DIR")
    if lacking:
        raise DataError(f"data set '{name}' needs {', '.join(sorted(lacking))}, which is none of its parameters")
    data: DataSet = kind(**given)
    if parameters is None:
        return data
    if "limit" in parameters and "limit" not in taken:
        data = Limited(data, parameters["limit"])
    if data.parameters() != dict(parameters):
        raise DataError(f"data set '{name}' cannot be made again from its recorded parameters; run its build command")
    return data

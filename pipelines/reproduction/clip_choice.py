"""Which held-out clips of actions the figures show: by what they show, how long they are, and never the same in two figures."""

from collections import Counter
from collections.abc import Sequence

from drnet.datasets.draws import key_of, permutation
from drnet.pipelines.figures.scene import Scene

EACH = 4  # clips of Fig. 7, and as many others of Fig. 11
KEY = key_of("clips of long futures")


def of_actions(scene: Scene, actions: Sequence[str], needed: int, notes: list[str]) -> list[str]:
    """Return the names of held-out clips, one of each action, begun so that what is predicted is in their middle.

    Args:
        scene: whose clips.
        actions: to show; where no clip shows one another action is taken in its place, and that is noted.
        needed: frames that a clip must have.
        notes: added to.
    """
    names = scene.clips.label_types["action"].names
    best: dict[str, int] = {}
    for clip in range(len(scene.clips)):
        action, length = names[scene.clips.labels(clip)["action"]], scene.clips.sample(clip).length
        before = best.get(action)
        if length >= needed and (before is None or scene.clips.sample(before).length < min(length, 3 * needed)):
            best[action] = clip
    if lacking := [action for action in actions if action not in best]:
        notes.append(f"no held-out clip of {needed} frames shows {', '.join(lacking)}: other actions are shown")
    order = [*(action for action in actions if action in best), *(action for action in best if action not in actions)]
    return [_begun(scene, best[action], needed) for action in order[: len(actions)]]


def far_clips(scene: Scene, observe: int, needed: int) -> tuple[list[str], list[str]]:
    """Return the names of the clips of Fig. 7, and of the others of Fig. 11; with fewer than two clips the second is empty.

    The figures choose in turn, each the clip that is long enough, shows what the figure has not, and is the longest; clips
    that are alike in this are drawn.

    Args:
        scene: whose clips.
        observe: frames that a clip must have more than.
        needed: frames that it should have.
    """
    rank = permutation(KEY, len(scene.clips)).tolist()
    facts = {clip: scene.clips.labels(clip) for clip in range(len(scene.clips))}
    left = [clip for clip in facts if scene.clips.sample(clip).length > observe]
    shown: tuple[list[int], list[int]] = ([], [])

    def worth(clip: int, seen: Counter[tuple[str, int]]) -> tuple[int, ...]:
        length = min(scene.clips.sample(clip).length, needed)
        known = [seen[name, facts[clip][name]] for name in ("action", "person")]
        return (int(length < needed), *known, -length, rank[clip])

    for turn in range(2 * EACH):
        figure = shown[turn % 2]
        if left:
            seen = Counter((name, facts[clip][name]) for clip in figure for name in ("action", "person"))
            figure.append(min(left, key=lambda clip: worth(clip, seen)))
            left.remove(figure[-1])
    first, second = ([_begun(scene, clip, needed) for clip in figure] for figure in shown)
    return first, second


def told_of_far(scene: Scene, names: Sequence[str], needed: int) -> str:
    """Return the note on how many clips are long enough, and how many of those shown."""
    lengths = {scene.key(clip): scene.clips.sample(clip).length for clip in range(len(scene.clips))}
    long = {key for key, length in lengths.items() if length >= needed}
    of = sum(name.partition(":")[0] in long for name in names)
    rest = "" if of == len(names) else "; beyond the end of a clip only the prediction is shown"
    return (
        f"held-out clips that have all {needed} frames, observed and predicted: {len(long)} of {len(lengths)}; "
        f"of the {len(names)} shown: {of}{rest}"
    )


def _begun(scene: Scene, clip: int, needed: int) -> str:
    """Return the name of a clip and of its first observed frame, with as many frames left out before as behind."""
    first = max(0, scene.clips.sample(clip).length - needed) // 2
    return f"{scene.key(clip)}:{first + 1}" if first else scene.key(clip)

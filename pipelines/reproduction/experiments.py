"""The paper's figures and tables as experiments: what each needs, how it is drawn, and the paper's numbers for it.

A new experiment is a row of `EXPERIMENTS`; its `draw` finds everything it needs made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from drnet.datasets.contract import DataError
from drnet.guess import guess
from drnet.pipelines.reproduction import actions, synthetic
from drnet.pipelines.reproduction.result import Claim, Made
from drnet.pipelines.reproduction.workshop import Workshop


@dataclass(frozen=True)
class Need:
    """A run that an experiment is made from.

    Attributes:
        role: of its data.
        variant: of the run.
        part: what of it is used, besides its weights.
        every_seed: whether the scale's number of seeds is trained.
    """

    role: str
    variant: str = ""
    part: Literal["", "predictor", "features"] = ""
    every_seed: bool = False


@dataclass(frozen=True)
class Experiment:
    """A figure or table.

    Attributes:
        id: as the command takes it.
        title: what it is about.
        where: its section in the paper.
        claim: what one should see, according to the paper.
        needs: its runs; all are on the data of one role.
        draw: makes it.
        claims: the paper's numbers.
    """

    id: str
    title: str
    where: str
    claim: str
    needs: tuple[Need, ...]
    draw: Callable[[Workshop, Made], None]
    claims: tuple[Claim, ...] = ()

    @property
    def role(self) -> str:
        """The role of its data."""
        return self.needs[0].role

    def by_name(self) -> Mapping[str, Claim]:
        """Return the paper's numbers by their names."""
        return {claim.name: claim for claim in self.claims}


KTH = Need("kth", part="predictor")
WITHIN = 3.0  # percentage points of Table 1 that pass
UNKNOWN = "the paper's sequences are not known"

EXPERIMENTS = (
    Experiment(
        "fig3",
        "Digits: content and pose exchanged, and 500 steps into the future",
        "Fig. 3, Sec. 4.2",
        "Digits of the first column at the places of those in the top row; digits that stay crisp for 500 steps.",
        (Need("digits", part="predictor"),),
        synthetic.fig3,
    ),
    Experiment(
        "fig4",
        "Toys: content and pose exchanged, with and without the adversarial loss",
        "Fig. 4, Sec. 4.2",
        "The toy of the first column turned as the one in the top row; without the adversarial loss content comes "
        "from the pose as well.",
        (Need("toys"), Need("toys", "beta0")),
        synthetic.fig4,
    ),
    Experiment(
        "fig5",
        "Chairs: interpolated poses, and content and pose exchanged",
        "Fig. 5, Sec. 4.2",
        "A chair that turns evenly from the first frame to the last; the chair of the first column turned as the one in "
        "the top row.",
        (Need("chairs"),),
        synthetic.fig5,
    ),
    Experiment(
        "table1",
        "Toys: their category told from content and from pose",
        "Table 1, Sec. 4.2, appendix D",
        "With the adversarial loss the content tells the category better than without, and the pose worse.",
        (Need("classes", "", "features", every_seed=True), Need("classes", "beta0", "features", every_seed=True)),
        synthetic.table1,
        (
            Claim("percent told from content, beta 0.1", 93.3, "least", WITHIN),
            Claim("percent told from pose, beta 0.1", 60.9, "near", WITHIN),
            Claim("percent told from content, beta 0", 72.6, "near", WITHIN),
            Claim("percent told from pose, beta 0", 80.8, "near", WITHIN),
            Claim("percent told by Mathieu et al. 2016", synthetic.MATHIEU_ACCURACY, missing=True),
        ),
    ),
    Experiment(
        "fig6",
        "Actions: 20 predicted frames of DrNet, the AE-LSTM and MCNet",
        "Fig. 6, Sec. 4.3",
        "Persons who move on and stay sharp with DrNet, and blur with the AE-LSTM.",
        (KTH, Need("kth", "ae24", "predictor"), Need("kth", "ae128", "predictor")),
        actions.fig6,
        (Claim("MCNet, PSNR in dB", "25.95 (in later papers)", missing=True),),
    ),
    Experiment(
        "fig7",
        "Actions: 100 predicted frames",
        "Fig. 7, Sec. 4.3",
        "Persons who keep moving as they did, mostly until they have left the frame.",
        (KTH,),
        actions.fig7,
    ),
    Experiment(
        "fig8",
        "Actions told from poses, with few training persons",
        "Fig. 8, Sec. 4.3, appendix D",
        "DrNet's poses tell the action better than the autoencoder's codes, with every number of training persons.",
        (Need("kth", "actions", "features"), Need("kth", "ae24", "features"), Need("kth", "ae128", "features")),
        actions.fig8,
        (
            Claim(
                "share of the numbers of persons with DrNet above both autoencoders",
                "above (curve lost)",
                why="the paper shows a curve, whose values are lost",
            ),
            Claim("DrNet, percent, most training persons", "below 93.9, fully supervised"),
        ),
    ),
    Experiment(
        "fig9",
        "Actions: the Inception Score against the offset",
        "Fig. 9, Sec. 4.3, appendix B",
        "A score that falls more slowly with the offset than MCNet's.",
        (KTH,),
        actions.fig9,
        (Claim("MCNet", "a curve, its values lost", missing=True),),
    ),
    Experiment(
        "fig10",
        "Actions: nearest training frames of generated ones",
        "Fig. 10, Sec. 4.3",
        "Neighbours by pose stand alike, whoever they are and wherever; no generated frame is a copy of a training frame.",
        (KTH,),
        actions.fig10,
    ),
    Experiment(
        "fig11",
        "Actions: further futures of 100 frames, beside MCNet",
        "Fig. 11, appendix A",
        "As Fig. 7, of other clips.",
        (KTH,),
        actions.fig11,
    ),
    Experiment(
        "fig12",
        "Actions: predictions minus the truth",
        "Fig. 12, appendix B",
        "A sharp person who is a little off: PSNR is then as low as for a blurred one.",
        (KTH,),
        actions.fig12,
        (
            Claim("DrNet, sequence 1, PSNR in dB", 19.6, why=UNKNOWN),
            Claim("DrNet, sequence 2, PSNR in dB", 20.3, why=UNKNOWN),
            Claim("MCNet, sequence 1, PSNR in dB", 18.0, missing=True),
            Claim("MCNet, sequence 2, PSNR in dB", 26.1, missing=True),
        ),
    ),
)
BY_ID = {experiment.id: experiment for experiment in EXPERIMENTS}


def chosen(ids: tuple[str, ...]) -> tuple[Experiment, ...]:
    """Return experiments by their ids, in the paper's order; `all` are all of them.

    Raises:
        DataError: for an id that is not known.
    """
    if wrong := [one for one in ids if one != "all" and one not in BY_ID]:
        meant = guess(wrong[0], [*BY_ID, "all", "report"])
        raise DataError(f"experiment {wrong[0]!r} is not known{meant}; there are {', '.join(BY_ID)} and all")
    return tuple(one for one in EXPERIMENTS if "all" in ids or one.id in ids)

"""Auto-labelling: MonoDR over whole folders, from instance masks and depth maps to KITTI files.

    job        what is to be done: inputs, selection, settings; the note that lets a run resume
    observe    image, camera, masks and depth of one id -> what the fit is given
    label      the loop: objects of many images share a batch, images share processes
    files      what is written of an image
    images   the image with the cars that were found, before and after; a fit as an animation
    adapters   masks and depth from models of the user's own

`run` does a `Job`; ``monolift autolabel`` is the same on the command line.
"""

from monolift.autolabel.job import FORMATS, SELECTIONS, Job, Selection
from monolift.autolabel.label import Labeller, Outcome, run

__all__ = ["FORMATS", "SELECTIONS", "Job", "Labeller", "Outcome", "Selection", "run"]

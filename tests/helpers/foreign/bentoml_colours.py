"""bentoml serve tests.helpers.foreign.bentoml_colours:Colours: an API with an image, as its documentation has it."""

import bentoml
from PIL.Image import Image

from tests.helpers.foreign.colours import of_image


@bentoml.service
class Colours:
    """Answers the number of the class, and its probability."""

    @bentoml.api
    def classify(self, image: Image) -> dict:
        row = of_image(image)
        best = row.index(max(row))
        return {"request_id": 1, "prediction": {"class_id": best, "confidence": row[best]}}

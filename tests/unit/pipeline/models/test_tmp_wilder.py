import pytest
from tests.unit.pipeline.models.test_wild import *  # noqa
from tests.unit.pipeline.models import test_wild as w
for n in [n for n in dir() if n.startswith("test_")]: del globals()[n]
@pytest.mark.parametrize("kind", w.wilder_models.RUN)
def test_w(kind, tmp_path): w.test_a_model_from_the_wild_answers_as_keras_does(kind, tmp_path)

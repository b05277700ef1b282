import logging
import warnings

import pytest

from dfl.app.quiet import quiet_lightning


@pytest.mark.parametrize(
    "message",
    [
        "The 'train_dataloader' does not have many workers which may be a bottleneck.",
        "Found 12 module(s) in eval mode at the start of training.",
        "Total length of `list` across ranks is zero. Please make sure this was your intention.",
    ],
)
def test_quiet__leaves_out_what_no_user_can_mend(message: str) -> None:
    with quiet_lightning():
        warnings.warn(message, stacklevel=1)  # pytest would make an error of it
    with pytest.warns(UserWarning, match=r"\w"):
        warnings.warn(message, stacklevel=1)


def test_quiet__other_warnings_stay() -> None:
    with quiet_lightning(), pytest.warns(UserWarning, match="your images"):
        warnings.warn("your images are odd", stacklevel=1)


def test_quiet__advertisements_and_absent_devices_go_and_the_log_is_as_before(caplog) -> None:
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = list(log.filters)
    with caplog.at_level(logging.INFO, logger=log.name), quiet_lightning():
        log.info("Tip: For seamless cloud uploads, buy this")
        log.info("GPU available: False, used: False")
        log.info("TPU available: False, using: 0 TPU cores")
        log.info("GPU available: True (cuda), used: False")
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["GPU available: True (cuda), used: False"]
    assert log.filters == before

"""The host waits for the oldest batch once it is three batches ahead of the device."""

from gluon_tricks.engine.inflight import InFlight


class Result:
    def __init__(self):
        self.waited = 0

    def wait_to_read(self):
        self.waited += 1


def test_the_oldest_is_waited_for_once_two_more_are_under_way():
    results, in_flight = [Result() for _ in range(6)], InFlight()
    for number, result in enumerate(results):
        in_flight.add(result)
        assert [each.waited for each in results] == [
            1 if index <= number - 2 else 0 for index in range(6)]

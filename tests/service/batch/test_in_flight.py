import threading

from upscaled.batch.in_flight import PixelSemaphore


def test_results_share_the_room_and_one_alone_may_be_larger() -> None:
    room, order = PixelSemaphore(10), []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with room.hold(5):
            order.append("second in")

    with room.hold(4), room.hold(6):
        thread = threading.Thread(target=second)
        thread.start()
        assert entered.wait(5)
        thread.join(0.05)
        order.append("first out")
    thread.join(5)
    assert order == ["first out", "second in"]
    with room.hold(1000):
        pass

"""Write a synthetic Vietnamese data set of a kind that is hard: many labels, long documents, or one rare label.

    python tools/make_sets.py many-labels FOLDER       # 80 labels, of which eight at a time begin alike
    python tools/make_sets.py long-documents FOLDER    # three labels; the opinion stands at the start or at the end
    python tools/make_sets.py imbalanced FOLDER        # two labels, 99 : 1

FOLDER gets train.jsonl, validation.jsonl and test.jsonl with the columns `text` and `label`, and task.yaml with the
labels. The same set and seed give the same bytes. All texts are made from the lists below.
"""

import json
import random
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml

Row = tuple[str, str]  # text and label

PLACES = {
    "khách sạn": ("khách sạn ven hồ", "khách sạn gần ga", "nhà nghỉ đầu phố"),
    "quán ăn": ("quán phở góc chợ", "tiệm bún đầu ngõ", "quán cơm trưa"),
    "phòng khám": ("phòng khám răng", "trạm y tế phường", "phòng khám mắt"),
    "thư viện": ("thư viện tỉnh", "phòng đọc tầng hai", "thư viện thiếu nhi"),
    "xe khách": ("chuyến xe đêm", "nhà xe liên tỉnh", "tuyến xe buýt số chín"),
    "ngân hàng": ("chi nhánh ngân hàng", "quầy giao dịch", "cây rút tiền"),
    "cửa hàng": ("cửa hàng giày dép", "tiệm điện máy", "hiệu sách cũ"),
    "bể bơi": ("bể bơi bốn mùa", "hồ bơi trẻ em", "bể bơi khu nhà"),
    "trung tâm": ("trung tâm ngoại ngữ", "lớp học vẽ", "lớp dạy nấu ăn"),
    "công viên": ("công viên ven sông", "vườn hoa trung tâm", "khu cắm trại"),
}
ASPECTS = {
    "giá cả": ("giá đắt quá so với mặt bằng", "tính tiền rẻ hơn tôi tưởng", "mức phí hơi cao"),
    "nhân viên": ("người phục vụ rất niềm nở", "nhân viên trả lời cộc lốc", "cô lễ tân chỉ dẫn tận tình"),
    "vệ sinh": ("sàn nhà bẩn và có mùi", "mọi góc đều sạch bóng", "rác để tràn ra lối đi"),
    "chỗ để xe": ("bãi gửi xe chật kín", "có chỗ đậu ô tô rộng", "phải dắt xe đi một quãng xa"),
    "giờ mở cửa": ("đóng cửa sớm quá", "mở cả ngày lễ nên tiện", "đến đúng giờ mà vẫn khóa cổng"),
    "tiếng ồn": ("loa mở to nhức cả đầu", "yên tĩnh, nghe rõ tiếng chim", "bên cạnh khoan đục suốt buổi"),
    "đặt chỗ": ("gọi điện giữ chỗ không ai nghe", "đặt trước trên mạng chỉ mất một phút", "bị hủy lượt đã đặt"),
    "trang thiết bị": ("quạt hỏng từ tuần trước", "máy móc đều mới", "ghế ngồi lung lay"),
}
WHEN = ("Hôm qua", "Tuần trước", "Sáng nay", "Cuối tháng", "Lần thứ hai ghé lại", "Tối thứ bảy", "Dịp nghỉ lễ")
ENDINGS = ("", " nhé", " thật", ", ai cũng nhận ra", ", tôi kể lại để mọi người biết", " như lần trước")

OPENERS = ("Buổi sáng", "Đến trưa", "Chiều hôm đó", "Khi trời sập tối", "Lúc mưa tạnh", "Ngày kế tiếp")
WHO = ("cả nhà", "mấy anh em", "nhóm bạn cũ", "hai mẹ con", "đoàn chúng tôi", "bác lái xe")
DID = ("đi bộ dọc bờ kè", "dừng lại uống nước mía", "chụp vài tấm ảnh", "xếp lại hành lý", "hỏi đường về bến",
       "ghi chép vào sổ tay", "ngồi nghe kể chuyện làng", "mua ít bánh đậu xanh")  # fmt: skip
WHERE = ("bên cây cầu gỗ", "trước cổng chợ", "dưới gốc bàng", "ở sân đình", "cạnh bến đò", "trong con hẻm nhỏ")
OPINIONS = {
    "khen": ("Nói chung chuyến đi rất đáng tiền, ai cũng hài lòng.", "Tôi thấy mọi thứ tuyệt vời và sẽ quay lại."),
    "chê": ("Nói chung chuyến đi quá thất vọng, không ai muốn quay lại.", "Tôi thấy mọi thứ tồi tệ, phí cả kỳ nghỉ."),
    "bình thường": (
        "Nói chung chuyến đi không có gì đặc biệt.",
        "Tôi thấy mọi thứ tạm được, không khen cũng không chê.",
    ),
}
ROUTINE = ("đồng hồ nước chạy đều", "hóa đơn đã thanh toán", "thang máy hoạt động tốt", "cây trên sân được tưới",
           "bưu phẩm đã giao", "đèn hành lang vẫn sáng", "camera ghi hình rõ")  # fmt: skip
URGENT = ("khói bốc ra từ tủ điện", "có người kẹt trong thang máy", "ống gas rò rỉ mùi nồng", "trần nhà sắp sập")


def many_labels(rng: random.Random, rows: int) -> list[Row]:
    """Every place with every aspect: 80 labels in turn, named "place: aspect"."""
    labels = [(place, aspect) for place in PLACES for aspect in ASPECTS]
    made = []
    for i in range(rows):
        place, aspect = labels[i % len(labels)]
        text = f"{rng.choice(WHEN)} lúc {rng.randint(6, 21)} giờ ở {rng.choice(PLACES[place])}, {rng.choice(ASPECTS[aspect])}"
        text += f"{rng.choice(ENDINGS)}."
        made.append((text, f"{place}: {aspect}"))
    return made


def long_documents(rng: random.Random, rows: int) -> list[Row]:
    """Some 200 to 1,500 words of no opinion, with one sentence that has it: half the time the first, else the last."""
    made = []
    for i in range(rows):
        label = list(OPINIONS)[i % len(OPINIONS)]
        story = [
            f"{rng.choice(OPENERS)} lúc {rng.randint(1, 12)} giờ {rng.randint(1, 59)} {rng.choice(WHO)} {rng.choice(DID)} {rng.choice(WHERE)}."
            for _ in range(rng.randint(20, 130))
        ]
        story.insert(0 if rng.random() < 0.5 else len(story), rng.choice(OPINIONS[label]))
        made.append((" ".join(story), label))
    return made


def imbalanced(rng: random.Random, rows: int) -> list[Row]:
    """One row of a hundred is urgent, and at least one."""
    made = []
    for i in range(rows):
        label, what = ("khẩn cấp", URGENT) if i % 100 == 0 else ("thường", ROUTINE)
        where = f"tòa {rng.choice('ABCDEGH')} tầng {rng.randint(1, 40)}"
        made.append((f"{rng.choice(WHEN)}, {where}: {rng.choice(what)}{rng.choice(ENDINGS)}.", label))
    return made


class Kind(StrEnum):
    MANY_LABELS = "many-labels"
    LONG_DOCUMENTS = "long-documents"
    IMBALANCED = "imbalanced"


MAKERS: dict[Kind, tuple[Callable[[random.Random, int], list[Row]], Sequence[int]]] = {
    Kind.MANY_LABELS: (many_labels, (1600, 240, 400)),
    Kind.LONG_DOCUMENTS: (long_documents, (300, 60, 120)),
    Kind.IMBALANCED: (imbalanced, (2000, 300, 1000)),
}


def make(kind: Kind, folder: Path, rows: Sequence[int] | None = None, seed: int = 42) -> Path:
    """Writes a set into a folder, which is returned; `rows` are those of train, validation and test."""
    maker, usual = MAKERS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    labels: dict[str, None] = {}
    for split, count in zip(("train", "validation", "test"), rows or usual, strict=True):
        rng = random.Random(f"{kind} {split} {seed}")
        made = maker(rng, count)
        labels |= dict.fromkeys(label for _, label in made)
        rng.shuffle(made)
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in made]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    task = {"labels": sorted(labels), "label_column": "label"}
    (folder / "task.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")
    return folder


def main(kind: Kind, folder: Path, seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 42) -> None:
    """Write one set."""
    make(kind, folder, seed=seed)
    data = f"--data {folder} --task {folder}/task.yaml --set data.text_column=text"
    print(f"loraft data {data}")


if __name__ == "__main__":
    typer.run(main)

"""Numbers, dates, times and temperatures in spoken form."""

import random

DIGITS = "零一二三四五六七八九"
HOLIDAYS = (
    "元旦 春节 除夕 元宵节 妇女节 清明节 劳动节 母亲节 端午节 儿童节 七夕 教师节 中秋节 国庆节 重阳节 圣诞节 情人节"
).split()
DAY_PARTS = "早上 早晨 清晨 上午 中午 下午 傍晚 晚上 今晚 夜里 半夜 凌晨".split()


def number(value: int) -> str:
    """Spell an integer from 0 to 999,999,999,999."""
    for unit, name in ((100_000_000, "亿"), (10_000, "万")):
        if value >= unit:
            high, low = divmod(value, unit)
            return number(high) + name + _rest(low, unit)
    if value >= 20 or value == 0:
        return _below_ten_thousand(value)
    return _below_ten_thousand(value).replace("一十", "十", 1)


def _rest(value: int, unit: int) -> str:
    """Spell what follows a unit: missing digits in between become one zero, and ten is 一十."""
    if value == 0:
        return ""
    text = number(value)
    return ("零" if value < unit // 10 else "") + ("一" + text if text.startswith("十") else text)


def _below_ten_thousand(value: int) -> str:
    for unit, name in ((1000, "千"), (100, "百"), (10, "十")):
        if value >= unit:
            high, low = divmod(value, unit)
            zero = "零" if low and low < unit // 10 else ""
            return DIGITS[high] + name + zero + (_below_ten_thousand(low) if low else "")
    return DIGITS[value]


def digits(value: int | str) -> str:
    """Spell digits one by one."""
    return "".join(DIGITS[int(figure)] for figure in str(value))


def quantity(rng: random.Random) -> str:
    """Draw a number of any size, sometimes with decimals."""
    text = number(rng.randrange(10 ** rng.choice((1, 2, 2, 3, 3, 4, 5, 7, 9))))
    return text + (f"点{digits(rng.randrange(1, 100))}" if rng.random() < 0.15 else "")


def small(rng: random.Random) -> str:
    """Draw a number up to 500, such as ranks and percentages."""
    return number(rng.choice((rng.randint(1, 12), rng.randint(2, 99), 10 * rng.randint(1, 50))))


def count(rng: random.Random) -> str:
    """Draw a number before a measure word, where two is 两."""
    text = small(rng)
    return "两" if text == "二" else text


def spoken_digits(rng: random.Random) -> str:
    """Draw a room number, a code or a telephone number, digit by digit, where one may be 幺."""
    text = "".join(rng.choice(DIGITS) for _ in range(rng.choice((2, 3, 3, 4, 4, 4, 5, 6, 6, 8, 11))))
    return text.replace("一", "幺") if rng.random() < 0.15 else text


def date(rng: random.Random) -> str:
    """Draw a date, a weekday or a holiday; not words like 明天, which are relative to today and are not marked."""
    month, day = number(rng.randint(1, 12)), number(rng.randint(1, 31))
    year = digits(rng.randint(1949, 2035))
    suffix = rng.choice("日号")
    forms = (
        f"{month}月{day}{suffix}",
        f"{month}月{day}{suffix}",
        f"{year}年{month}月{day}日",
        f"{year}年{month}月",
        f"{year}年",
        rng.choice(("今年", "去年", "明年")) + f"{month}月" + rng.choice(("", f"{day}{suffix}")),
        f"{month}月" + rng.choice(("", "初", "底", "中旬")),
        rng.choice(("", "", "本月")) + f"{day}{suffix}",
        rng.choice(("周", "星期", "下周", "这周", "上周", "本周", "礼拜")) + rng.choice("一二三四五六日"),
        rng.choice(HOLIDAYS),
    )
    return rng.choice(forms)


def time(rng: random.Random) -> str:
    """Draw a time of day."""
    part = rng.choice(("", "", "", *DAY_PARTS))
    hour = rng.randint(1, 12) if part else rng.randint(0, 23)
    minute = rng.randint(1, 59)
    minutes = ("", "", "整", "钟", "半", "一刻", "三刻", f"{'零' if minute < 10 else ''}{number(minute)}分")
    return f"{part}{'两' if hour == 2 else number(hour)}点{rng.choice(minutes)}"


def temperature(rng: random.Random) -> str:
    """Draw a temperature of weather, bodies, water or ovens."""
    value = rng.choice((rng.randint(0, 44), rng.randint(16, 30), 10 * rng.randint(5, 25)))
    tenth = f"点{rng.choice(DIGITS[1:])}" if rng.random() < 0.2 else ""
    degrees = f"{'两' if value == 2 and not tenth else number(value)}{tenth}"
    return rng.choice((f"{degrees}度", f"{degrees}度", f"零下{degrees}度", f"摄氏{degrees}度", f"{degrees}摄氏度"))

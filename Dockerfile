# A server for one model: docker build -t citrinet . && docker run -p 8000:8000 citrinet
FROM python:3.11-slim

# The wheels of soundfile and soxr include their libraries; ffmpeg reads other formats, such as m4a.
RUN apt-get update && apt-get install --yes --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*

WORKDIR /package
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY convert convert
# CPU builds of PyTorch and torchaudio, without CUDA libraries, both from one index.
RUN pip install --no-cache-dir torch torchaudio --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir ".[serve]"

# An unprivileged user; downloads from the Hub go to its home folder.
RUN useradd --create-home citrinet
USER citrinet
WORKDIR /home/citrinet

EXPOSE 8000
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"
ENTRYPOINT ["citrinet", "serve", "--host", "0.0.0.0"]

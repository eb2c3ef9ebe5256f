# A server for one model: docker build -t citrinet . && docker run -p 8000:8000 citrinet
FROM python:3.11-slim

# soundfile and soxr bring their libraries with them; ffmpeg reads what they do not, such as m4a.
RUN apt-get update && apt-get install --yes --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*

WORKDIR /package
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY convert convert
# A CPU's PyTorch, without CUDA's libraries, and the torchaudio of the same index.
RUN pip install --no-cache-dir torch torchaudio --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir ".[serve]"

# A user without rights; what is downloaded from the Hub goes to its home.
RUN useradd --create-home citrinet
USER citrinet
WORKDIR /home/citrinet

EXPOSE 8000
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"
ENTRYPOINT ["citrinet", "serve", "--host", "0.0.0.0"]

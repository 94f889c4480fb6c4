#include "lexer.h"

#include <cctype>
#include <string>

#include "error.h"

namespace rnk::emu {
namespace {

bool word_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' ||
         c == '.';
}

}  // namespace

void Lexer::skip_blank() {
  while (pos_ < text_.size()) {
    char c = text_[pos_];
    if (c == '\n') {
      ++line_;
      ++pos_;
    } else if (std::isspace(static_cast<unsigned char>(c))) {
      ++pos_;
    } else if (text_.compare(pos_, 2, "//") == 0) {
      while (pos_ < text_.size() && text_[pos_] != '\n') ++pos_;
    } else if (text_.compare(pos_, 2, "/*") == 0) {
      size_t end = text_.find("*/", pos_ + 2);
      if (end == std::string_view::npos)
        throw Error("parse", "PTX line " + std::to_string(line_) + ": comment without end");
      for (; pos_ < end + 2; ++pos_) line_ += text_[pos_] == '\n';
    } else {
      return;
    }
  }
}

void Lexer::skip_line() {
  int line = token_.line;
  while (token_.kind != Token::kEnd && token_.line == line) advance();
}

void Lexer::advance() {
  skip_blank();
  token_ = Token{};
  token_.line = line_;
  if (pos_ >= text_.size()) return;
  size_t start = pos_;
  char c = text_[pos_];
  if (c == '"') {
    size_t end = text_.find_first_of("\"\n", pos_ + 1);
    if (end == std::string_view::npos || text_[end] == '\n')
      throw Error("parse", "PTX line " + std::to_string(line_) + ": string without end");
    token_.kind = Token::kString;
    token_.text = text_.substr(start + 1, end - start - 1);
    pos_ = end + 1;
    return;
  }
  if (!word_char(c)) {
    token_.kind = Token::kPunct;
    token_.text = text_.substr(pos_++, 1);
    return;
  }
  token_.kind = std::isdigit(static_cast<unsigned char>(c)) ? Token::kNumber : Token::kWord;
  while (pos_ < text_.size()) {
    char d = text_[pos_];
    bool exponent_sign = token_.kind == Token::kNumber && (d == '+' || d == '-') &&
                         (text_[pos_ - 1] == 'e' || text_[pos_ - 1] == 'E') &&
                         text_.substr(start, pos_ - start).find('.') != std::string_view::npos;
    if (text_.compare(pos_, 2, "::") == 0) {
      pos_ += 2;
    } else if (word_char(d) || exponent_sign) {
      ++pos_;
    } else {
      break;
    }
  }
  token_.text = text_.substr(start, pos_ - start);
}

}  // namespace rnk::emu

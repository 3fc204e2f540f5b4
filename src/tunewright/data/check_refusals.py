"""Answers that refuse, or that speak of being a language model, as finding D211 names them."""

from __future__ import annotations

import re

from tunewright.data.check_personal import around

_OPENING = 300  # characters in which a refusal is looked for
_MAKER = r"(?:openai|anthropic|google|meta(?: ai)?|deepmind|microsoft|mistral(?: ai)?|alibaba|deepseek)"
_NAME = r"(?:chat ?gpt|gpt-?[345]\w*|claude|bard|gemini|copilot|llama(?:-?\d)?|deepseek|qwen)"
# That it is the model of somebody else, said in the first person.
_I_AM_NAMED = (
    rf"\bi(?: am|['’]m) {_NAME}\b[^.!?\n]{{0,60}}\b(?:model|assistant|ai|chatbot|{_MAKER})\b"
    rf"|\bi was (?:made|created|trained|developed|built) by {_MAKER}\b"
    rf"|我是(?:{_NAME}|通义千问|文心一言)(?=[，,。.、]|$)|我是?由{_MAKER}[^。！？\n]{{0,8}}(?:开发|训练|创造|研发|推出)"
)
_I_AM_A_MODEL = r"\bi(?: am|['’]m) (?:just |only |merely )?an? (?:(?:ai|large) )?language model\b"
_ABOUT_ITSELF = re.compile(
    r"\bas an? (?:(?:ai|artificial intelligence)"
    r"(?: (?:language |chat )?(?:model|assistant|chatbot|bot|system|program))?"
    r"(?=\s*[,.]|\s+(?:i|we|my|trained|developed|created)\b)|(?:large )?language model\b)"
    rf"|{_I_AM_A_MODEL}|{_I_AM_NAMED}"
    r"|\bmy (?:knowledge cut-?off|training data (?:only )?(?:goes|ends|extends))"
    r"|[作身]为(?:一[个名款种位])?(?:(?:AI|人工智能)(?:语言)?(?:模型|助手|助理|程序|机器人|系统)?|(?:大型?)?语言模型)"
    r"(?=[，,。；我]|\s|$)|我(?:只)?是(?:一[个名款种])?(?:AI|人工智能)?(?:大型?)?语言模型",
    re.IGNORECASE,
)
_ABOUT_SIGNS = (
    "as a", "language model", "i am", "i'm", "i’m", "i was", "my knowledge", "my training", "作为", "身为", "我"
)  # fmt: skip
# The same in the middle of an answer, where only the first person is surely the model's.
_FURTHER_ON = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.!?\n]{0,40}?\b(?:i|my|me)\b"
    rf"|{_I_AM_A_MODEL}"
    r"|[作身]为(?:一[个名款种位])?(?:AI|人工智能|大?型?语言模型)[^。！？\n]{0,8}?[，,]\s*我",
    re.IGNORECASE,
)
_FURTHER_SIGNS = re.compile("language model|as an ai|as an artificial|[作身]为", re.IGNORECASE)
_SORRY = (
    r"(?:(?:i(?: am|['’]m) )?(?:really |very |so |truly )?sorry|i apologi[sz]e|my apologies|unfortunately)\b"
    r"[^.!?\n]{0,20}?[,.;]?\s*(?:but |however,? )?"
)
_UNABLE = (
    r"i(?: am|['’]m)?(?: really| simply| just)? ?(?:can(?:not|['’]t| not)|unable to|not able to|won['’]t)"
    r"(?: be able to)?(?: really)? (?!help but)(?:help|assist|provid|fulfil|comply|answer|generat|creat|writ|discuss|"
    r"support|engag|access|shar|giv|complet|process|brows|do that|respond|continue|offer|predict|say|tell|look up|"
    r"check|perform|recommend|determin|identif|verif|express|see or|open|translat|summari[sz])"
)
# What a model is not willing to do, and what its rules say.
_DOES = r"(?:answer|provid|discuss|help|assist|writ|shar|giv|do|creat|generat|say|engag|comply|tell)\w*"
_UNWILLING = (
    rf"i(?: am|['’]m) afraid (?:that )?i (?:can(?:not|['’]t| not)|am unable to|won['’]t)(?: be able to)? {_DOES}"
    rf"|i(?: am|['’]m) not comfortable (?:with )?{_DOES}|i (?:do not|don['’]t) feel comfortable (?:with )?{_DOES}"
    rf"|i (?:do not|don['’]t) think (?:that )?i (?:can|should|am able to) (?:really )?{_DOES}"
    r"|i can(?:not|['’]t) in good conscience\b|i(?: am|['’]m) (?:just|only|merely) an ai\b"
    r"|it (?:(?:would be|is) (?:inappropriate|unethical|not (?:appropriate|ethical))|(?:wouldn['’]t be|isn['’]t) "
    rf"(?:appropriate|ethical)) (?:for me )?(?:to|if i) {_DOES}"
    r"|(?:your|this|that|the) (?:request|question|prompt|content|query) (?:violates|goes against|is against)"
    r" (?:our|my|the|openai['’]s) [^.!?\n]{0,30}?(?:polic|guideline|rules|terms)"
)
# The same in French, German and Spanish.
_ELSEWHERE = (
    r"(?:(?:je suis (?:vraiment |sincèrement )?)?(?:désolée?|navrée?)\b[^.!?\n]{0,16}?)?\bje ne (?:"
    r"(?:peux|saurais|pourrai) (?:malheureusement )?(?:pas )?(?:vous |te |t['’]|y )?(?:aider|répondre|fournir|"
    r"assister|donner|faire (?:cela|ça)|traiter|discuter|partager|créer|générer|écrire|accéder)"
    r"|suis (?:malheureusement )?pas (?:en mesure|capable|autorisée?|programmée?) )"
    r"|en tant qu(?:e |['’])(?:modèle de langage|ia\b|intelligence artificielle|assistant virtuel)"
    r"|(?:(?:es )?tut mir (?:sehr |wirklich )?leid\b[^.!?\n]{0,10}?|leider )?\b"
    r"(?:ich (?:kann|darf|bin)|(?:kann|darf|bin) ich) [^.!?\n]{0,60}?\b(?:nicht|keine?n?)\b[^.!?\n]{0,60}?"
    r"\b(?:helfen|weiterhelfen|beantworten|antworten|erfüllen|bereitstellen|geben|unterstützen|erstellen|schreiben|"
    r"in der lage)\b"
    r"|als (?:ki|künstliche intelligenz|(?:ki-)?sprachmodell)\b[^.!?\n]{0,30}?\b(?:ich|mir)\b"
    r"|(?:lo (?:siento|lamento)\b[^.!?\n]{0,16}?)?\bno (?:puedo|podr[eé]|me es posible) (?:ayud|proporcion|respond|"
    r"cumpl|asist|compart|gener|cre|escrib|acced|hacer eso)\w*"
    r"|como (?:una? )?(?:modelo de lenguaje|ia|inteligencia artificial|asistente virtual)\b(?=[^.!?\n]{0,20}?,)"
)
_REFUSES = re.compile(
    rf"(?:{_SORRY})?{_UNABLE}"
    rf"|(?:{_SORRY})?(?:{_UNWILLING})|{_ELSEWHERE}"
    r"|(?:i(?:['’]m| am) (?:just |only )?an? (?:ai|artificial intelligence)\b[^.!?\n]{0,40}?[,.;]? ?"
    r"(?:so |and |but )?)?i (?:don['’]t|do not) (?:currently |actually )?have (?:any )?(?:personal |human |real )?"
    r"(?:access to|feelings|emotions|opinions|beliefs|preferences|experiences|thoughts|"
    r"consciousness|the ability to|the capability to)"
    r"|i (?:must|have to) (?:respectfully |politely )?(?:decline|refuse)|i (?:won['’]t|will not) be able to"
    r"|(?:非常|很|十分)?(?:抱歉|对不起|不好意思|遗憾)[^。！!？?\n]{0,16}?(?:无法|不能|没有办法|没法)"
    r"|我(?:只)?是(?:一[个名款种])?(?:AI|人工智能)[^。！!？?\n]{0,12}[，,。]\s*(?:所以|因此)?(?:我)?(?:没有|无法|不能|不具备)"
    r"|(?:非常|很|十分)?(?:抱歉|对不起|不好意思)[^。！!？?\n]{0,16}?(?:帮不[了上到]|回答不了|做不到|办不到)|我没有?(?:能力|办法|权限)"
    r"|我(?:无法|不能)(?:提供|回答|帮助|协助|满足|完成|生成|访问|获取|讨论)",
    re.IGNORECASE,
)


def refusal(text: str) -> str | None:
    """What of an answer refuses, or speaks of the model itself: at its head, or surely further on."""
    opening = text[:_OPENING].lstrip()
    lower = opening.lower()
    match = _REFUSES.match(opening)
    if match is None and any(sign in lower for sign in _ABOUT_SIGNS):
        match = _ABOUT_ITSELF.search(opening)
    if match is None and len(text) > _OPENING and _FURTHER_SIGNS.search(text):
        match = _FURTHER_ON.search(text)
    return around(match.string, match, 0) if match else None
